"""The window that a drift check looks at: hours of the prediction log, counted once each, and a sample of their rows.

An hour's count is made of the hour's log and of nothing else, kept in ``.lepton/drift/<task>/hours`` beside what it was
made of, and made anew when that has changed: after a kill there is nothing to mend. It is made when the hour is compacted,
or by the check where that was not; the hour that is going on is counted by each check.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lepton_platform.pipeline.code import code_hash
from lepton_platform.pipeline.stages import get_stage
from lepton_platform.settings import Settings
from lepton_platform.tasks import load_part

if TYPE_CHECKING:
    from lepton_platform.monitoring.counted import Counted
    from lepton_platform.monitoring.drift import Window
    from lepton_platform.serving.log_scan import Extent

T = TypeVar("T")
HOUR = "%Y-%m-%dT%H"
FORMAT = 1
KEPT_HOURS = 31 * 24
TRIES = 5  # an hour may be compacted while it is counted


def count_hour(settings: Settings, task: str, hour: str, most: int) -> "dict[str, Counted]":
    """What each Bento served in the hour; ``most``: ids of a sample. From the file of an earlier count where it holds."""
    from lepton_platform.monitoring import counted
    from lepton_platform.serving.log_scan import extent

    path = _folder(settings, task) / f"{hour}.parquet"
    code = code_hash(get_stage("reference"), task)

    def count() -> "dict[str, Counted]":
        what = extent(settings.predictions_dir, task, hour)
        stamp = json.dumps({"format": FORMAT, "of": what, "code": code, "ids": most}, sort_keys=True)
        known = counted.load(path, stamp, most)
        if known is not None:
            return known
        found = _count(settings, task, hour, what, most, "")
        counted.save(found, path, stamp)
        return found

    return undisturbed(count, settings.predictions_dir / task / hour)


def undisturbed(read: Callable[[], T], folder: Path) -> T:
    """What ``read`` reads of the log: again where an hour in ``folder`` was compacted meanwhile.

    Its segments go when its Parquet file is there, so that the next look finds the same rows.
    """
    for _ in range(TRIES):
        try:
            return read()
        except FileNotFoundError:
            continue
    raise RuntimeError(f"The files of {folder} changed {TRIES} times while they were read.")


def any_since(settings: Settings, task: str, since: datetime) -> bool:
    """Are there hours of the log since then, whoever answered?"""
    from lepton_platform.serving.log_reader import hours

    return hours(settings.predictions_dir, task)[-1:] >= [since.astimezone(UTC).strftime(HOUR)]


def window(settings: Settings, task: str, since: datetime, tag: str, most: int) -> "Window | None":
    """What this Bento answered since then, or ``None`` where there are no predictions at all.

    At most ``most`` rows are read, chosen by the hash of their ids, so that of inputs that are media no others are. A row
    whose input is gone is left out; the log's reader has named it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from lepton_platform.monitoring.counted import Counted
    from lepton_platform.monitoring.drift import Window
    from lepton_platform.serving.log_reader import hours, read_all

    since = since.astimezone(UTC)
    first = since.strftime(HOUR)
    known = [hour for hour in hours(settings.predictions_dir, task) if hour >= first]
    if not known:
        return None
    total = Counted(most)
    for hour in known:
        whole = hour > first or not any((since.minute, since.second, since.microsecond))
        found = count_hour(settings, task, hour, most) if whole else _count_since(settings, task, hour, since, most)
        if tag in found:
            total.merge(found[tag])
    prune(settings, task)
    pieces = undisturbed(
        lambda: list(read_all(settings.predictions_dir, task, since=first, ids=set(total.ids))),
        settings.predictions_dir / task,
    )
    pa.default_memory_pool().release_unused()  # of whole hours, which the check does not need again
    if not pieces:
        return Window(pa.table({"id": pa.array([], pa.string())}), 0)
    rows = pa.concat_tables(pieces, promote_options="default")
    content = load_part(task, "preprocess").CONTENT
    rows = rows.filter(pc.field(content).is_valid()) if content in rows.column_names else rows
    return Window(rows, total.rows, total.sketches)


def prune(settings: Settings, task: str) -> None:
    """Counts of hours long past make room; they can be made again as long as the log has the hour."""
    kept = sorted(_folder(settings, task).glob("*.parquet"))
    for old in kept[:-KEPT_HOURS]:
        old.unlink(missing_ok=True)


def _folder(settings: Settings, task: str) -> Path:
    return settings.state_dir / "drift" / task / "hours"


def _count_since(settings: Settings, task: str, hour: str, since: datetime, most: int) -> "dict[str, Counted]":
    """The hour's rows from a moment within it on; not kept."""
    from lepton_platform.serving.ids import first_id
    from lepton_platform.serving.log_scan import extent

    def count() -> "dict[str, Counted]":
        return _count(settings, task, hour, extent(settings.predictions_dir, task, hour), most, first_id(since))

    return undisturbed(count, settings.predictions_dir / task / hour)


def _count(settings: Settings, task: str, hour: str, what: "Extent", most: int, first: str) -> "dict[str, Counted]":
    import pyarrow as pa
    import pyarrow.compute as pc

    from lepton_platform.monitoring.counted import Counted
    from lepton_platform.serving.log_scan import scan

    part = load_part(task, "drift")
    found: dict[str, Counted] = {}
    for rows in scan(settings.predictions_dir, task, hour, what):
        rows = rows.filter(pc.field("id") >= pa.scalar(first)) if first else rows
        for tag in rows["model"].unique().to_pylist():
            of_tag = rows.filter(pc.field("model") == pa.scalar(tag))
            found.setdefault(tag, Counted(most)).update(of_tag, part)  # pyright: ignore[reportArgumentType]
    return found
