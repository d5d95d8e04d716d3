"""`lepton rehearse`: the loop from drift to promotion, refusal or rollback, played in a scratch workspace."""

import logging
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_platform.cli.common import FAILED, Json, UsageError, print_json, say

if TYPE_CHECKING:
    from lepton_platform.rehearsal.timeline import Beat

ALL = "all"


def rehearse(
    task: Annotated[str, typer.Argument(help="A task that can be rehearsed.")],
    profile: Annotated[str, typer.Option(help="The parameters that are played with.")] = "rehearsal",
    ending: Annotated[str, typer.Option(help="promotion, refusal, rollback, or all of them.")] = ALL,
    as_json: Json = False,
) -> None:
    """Play the loop with the real parts in a temporary workspace; exit 1 where an ending is not the one hoped for."""
    from lepton_platform.pipeline.params import profile_names
    from lepton_platform.rehearsal.endings import ENDINGS
    from lepton_platform.rehearsal.shifts import shift_of

    if ending not in (ALL, *ENDINGS):
        raise UsageError(f"There is no ending '{ending}'. The endings are: {', '.join(ENDINGS)}, {ALL}.")
    if profile not in profile_names():
        raise UsageError(f"There is no profile '{profile}'. The profiles are: {', '.join(profile_names())}.")
    shift_of(task)
    told = _played(task, profile, list(ENDINGS) if ending == ALL else [ending], as_json)
    if as_json:
        print_json(told)
    else:
        for one in told["endings"]:
            say(f"{one['name']}: {'as hoped' if one['as_hoped'] else 'NOT as hoped'}. {one['said']}")
        say(f"{told['seconds']:.0f} s.")
    if not all(one["as_hoped"] for one in told["endings"]):
        raise typer.Exit(FAILED)


def _played(task: str, profile: str, endings: list[str], quietly: bool) -> dict[str, Any]:
    from lepton_platform.cli.progress import bars
    from lepton_platform.pipeline.history import history
    from lepton_platform.rehearsal.endings import ENDINGS
    from lepton_platform.rehearsal.play import Play
    from lepton_platform.rehearsal.scratch import scratch
    from lepton_platform.rehearsal.timeline import Timeline

    logging.disable(logging.WARNING)  # the timeline tells the alarms
    began, timeline = time.monotonic(), Timeline(_silent if quietly else _tell)
    with scratch(task, profile) as settings, bars() as shown:
        play = Play(settings, task, timeline, shown.watch)
        play.build()
        with play.serving():
            found = [ENDINGS[name](play).as_dict() for name in endings]
        events = [event.as_dict() for event in history(settings, task)]
    return {
        "task": task,
        "profile": profile,
        "seconds": round(time.monotonic() - began, 1),
        "timeline": timeline.as_list(),
        "endings": found,
        "history": events,
    }


def _silent(beat: "Beat") -> None:
    del beat


def _tell(beat: "Beat") -> None:
    say(f"{beat.after_s:7.1f} s  {beat.at[11:19]}  {beat.what:<18} {beat.said}")
