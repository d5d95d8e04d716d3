"""What people said of the answers: is it enough to learn from, and is the service as good as it was tested to be?"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lepton_platform.pipeline.operate import champion_tag
from lepton_platform.pipeline.params import section
from lepton_platform.pipeline.served import HOUR, undisturbed
from lepton_platform.settings import Settings
from lepton_platform.tasks import load_part

if TYPE_CHECKING:
    import pyarrow as pa

    from lepton_platform.monitoring.quality import ServedQuality
    from lepton_platform.monitoring.retraining import Wish
    from lepton_platform.monitoring.words import Counts


def enough_labels(settings: Settings, task: str, since: datetime) -> "Wish | None":
    """Have so many answers been labelled since then that one should retrain? See ``retrain.new_labels``.

    Its time is when there were enough, so that it is the same wish whenever one looks.
    """
    from lepton_platform.monitoring.retraining import RetrainParams, Wish
    from lepton_platform.serving.log_reader import FEEDBACK, read_all

    wanted = section(settings.workspace, task, "retrain", RetrainParams).new_labels
    if wanted is None:
        return None
    first: dict[str, datetime] = {}
    hour = since.astimezone(UTC).strftime(HOUR)

    def words() -> "list[pa.Table]":
        return list(read_all(settings.predictions_dir, task, FEEDBACK, since=hour, media=False))

    for piece in undisturbed(words, settings.predictions_dir / task):
        for identity, at in zip(piece["id"].to_pylist(), piece["at"].to_pylist(), strict=True):
            if at > since:
                first[identity] = min(at, first[identity]) if identity in first else at
    if len(first) < wanted:
        return None
    return Wish("labels", sorted(first.values())[wanted - 1], f"{len(first)} answers were labelled; {wanted} ask.")


def check_quality(settings: Settings, task: str, window: timedelta, as_of: datetime) -> "ServedQuality":
    """Hold what people said of the champion's answers within the window against the frozen test's figure.

    ``as_of``: the window's end, and when what was said later is not known yet.
    """
    from lepton_platform.monitoring import quality as room
    from lepton_platform.monitoring.quality_book import QualityBook
    from lepton_platform.serving.lineage import stored_manifest

    params, tag = section(settings.workspace, task, "feedback", room.FeedbackParams), champion_tag(settings, task)
    content, truth = load_part(task, "preprocess").CONTENT, truth_name(task)

    def read() -> tuple[list[Any], "Counts"]:
        joined, counts = _joined(settings, task, as_of - window, as_of, tag)
        return _with_inputs(settings, task, room.chosen(joined, params.max_rows)), counts

    found = room.judged(
        *undisturbed(read, settings.predictions_dir / task),
        judge=load_part(task, "metrics").EVALUATOR,
        source=load_part(task, "source"),
        content=content,
        truth=truth,
        tested=stored_manifest(settings, tag)["metrics"],
        params=params,
        model=tag,
        as_of=as_of,
    )
    book = QualityBook(settings)
    latest = next((known.as_of for known in book.of(task, 1)), "")
    book.write(task, found)
    if found.as_of >= latest:  # who looks back alarms nobody
        _alert_quality(settings, task, found, as_of)
    return found


def _joined(settings: Settings, task: str, since: datetime, until: datetime, tag: str) -> tuple[list[Any], "Counts"]:
    """Labelled answers without their media, which may be many, and what became of all words."""
    import pyarrow as pa

    from lepton_platform.monitoring.quality import join
    from lepton_platform.serving.ids import hour_of
    from lepton_platform.serving.log_reader import FEEDBACK, read_all, read_log

    logs, hour = settings.predictions_dir, since.astimezone(UTC).strftime(HOUR)
    said = list(read_all(logs, task, FEEDBACK, since=hour))  # nobody can have said anything before
    words = pa.concat_tables(said, promote_options="default") if said else read_log(logs, task, "never", FEEDBACK)
    ids = set(words["id"].to_pylist())
    first = min((found for identity in ids if (found := hour_of(identity)) is not None), default=hour)
    pieces = read_all(logs, task, since=min(first, hour), ids=ids, media=False)
    return join(pieces, words, since=since, until=until, as_of=until, model=tag, truth=truth_name(task))


def _with_inputs(settings: Settings, task: str, joined: list[Any]) -> list[Any]:
    from lepton_platform.serving.log_reader import read_all

    ids = {row["id"] for row, _ in joined}
    first = min((row["at"].astimezone(UTC).strftime(HOUR) for row, _ in joined), default="9")
    pieces = read_all(settings.predictions_dir, task, since=first, ids=ids)
    whole = {row["id"]: row for piece in pieces for row in piece.to_pylist()}
    return [(whole.get(row["id"], row), true) for row, true in joined]


def _alert_quality(settings: Settings, task: str, found: "ServedQuality", at: datetime) -> None:
    from lepton_platform.monitoring.alerts import Alerts

    if found.failed:
        Alerts(settings).raised(task, "quality", found.why, at)
    elif found.state == "passed":
        Alerts(settings).cleared(task, "quality", found.why, at)


def truth_name(task: str) -> str:
    """What feedback calls the truth: a label, where the task's ``api`` says nothing else."""
    from lepton_platform.monitoring.feedback import LABEL

    return getattr(load_part(task, "api"), "TRUTH", LABEL)
