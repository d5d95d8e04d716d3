"""The three endings: the challenger is promoted, refused at the gate, or rolled back as a canary."""

from dataclasses import replace
from typing import Any

from lepton_platform.monitoring.quality import figure, gain
from lepton_platform.rehearsal.client import Json, Row
from lepton_platform.rehearsal.play import Ending, Play, truths
from lepton_platform.stage import StageFailed
from lepton_platform.tasks import load_part


def promotion(play: Play) -> Ending:
    """What the service is asked changes; the loop learns it, and takes over step by step."""
    usual, new, probe = play.rows
    play.user.ask(usual)
    if play.check_drift():
        return Ending("promotion", False, "The drift check failed before anything had changed.")
    before = play.user.ask(probe)
    play.timeline.add("shift", f"From now on: {play.shift.about}.", rows=len(new) + len(probe))
    play.user.say(play.user.ask(new), new)
    if not play.check_drift():
        return Ending("promotion", False, "The drift check did not see the shift.")
    play.retrain()
    challenger = play.latest()
    ended = play.follow(challenger, new) if challenger.state == "canary" else challenger
    if ended.state != "champion":
        return Ending("promotion", False, ended.reason, {"test": ended.comparison})
    return _better(play, probe, before, ended.comparison or {})


def _better(play: Play, probe: list[Row], before: list[Json], test: dict[str, Any]) -> Ending:
    """Is the new champion better on what is new, and not shown to be worse on the frozen test?"""
    judge, rows, after = load_part(play.task, "metrics").EVALUATOR, truths(play.task, probe), play.user.ask(probe)
    found = {"before": figure(judge, rows, before), "after": figure(judge, rows, after)}
    found["difference"] = gain(judge, rows, after, before)
    shown = {name: f"{one.estimate:.3f} [{one.low:.3f}, {one.high:.3f}]" for name, one in found.items()}
    told = (
        f"{judge.headline_name} on {len(probe)} inputs of the new kind {shown['before']} before, {shown['after']} after, "
        f"difference {shown['difference']}; on the {test['rows']:,} frozen test rows {test['champion']:.3f} before, "
        f"{test['challenger']:.3f} after, difference {test['difference']:.3f} [{test['low']:.3f}, {test['high']:.3f}]"
    )
    figures = {**{name: one._asdict() for name, one in found.items()}, "test": test}
    play.timeline.add("quality", f"{told}.")
    return Ending("promotion", found["difference"].low > 0 and test["high"] >= 0, told, figures)


def refusal(play: Play) -> Ending:
    """Somebody's mass edit gives the training rows each other's labels: what learns from that must not serve."""
    champion = play.champion()
    edited = play.spoil()
    play.timeline.add("spoilt", f"{edited} training rows were given the labels of others.")
    play.ask_on_schedule()
    try:
        play.retrain()
        offered = play.latest()
        ended = Ending("refusal", offered.state == "refused", offered.reason, {"test": offered.comparison})
    except StageFailed as failure:  # a gate of the graph itself
        play.timeline.add("gate refused", failure.message)
        ended = Ending("refusal", True, failure.message)
    ran = play.mend()
    back = f"What had to run: {', '.join(sorted(ran))}." if ran else "Nothing had to run: DVC held it all."
    play.timeline.add("edits taken back", back)
    return replace(ended, as_hoped=ended.as_hoped and not ran and play.champion().id == champion.id)


def rollback(play: Play) -> Ending:
    """The same model in a Bento that takes one request at a time: as good on the test rows, failing under load."""
    champion, (usual, _, _) = play.champion(), play.rows
    play.set_param("serve", max_requests=1)
    play.rebuild()
    canary = play.latest()
    if canary.state != "canary":
        return Ending("rollback", False, canary.reason)
    ended = play.follow(canary, usual, clients=12)
    back = ended.state == "turned back" and play.champion().id == champion.id
    return Ending("rollback", back, ended.reason)


ENDINGS = {"promotion": promotion, "refusal": refusal, "rollback": rollback}
