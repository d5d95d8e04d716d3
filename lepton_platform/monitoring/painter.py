"""Evidently's page is drawn in a process of its own, which is started before there is anything to draw.

Evidently takes some six seconds and a quarter of a gigabyte to be imported. Beside the check, on another core, that costs
no time; the check's own process stays small; and a page that could not be drawn takes no verdict with it.

``python -m lepton_platform.monitoring.painter`` reads a line of JSON a page and answers each with a line of JSON; its
``main`` is below, ``Painter`` is who calls it.
"""

import json
import logging
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lepton_platform.monitoring.signals import Signals

if TYPE_CHECKING:
    from lepton_platform.monitoring.evidently_report import Pair

TIMEOUT_S = 300.0  # for a page, on a machine that does other things too
logger = logging.getLogger("lepton.drift")


@dataclass(frozen=True)
class Place:
    """Where a page goes: two files, and ``project`` of Evidently's ``workspace``, if there is one.

    ``note`` stands above the page. ``name`` and ``description`` are the run's; of runs ``keep`` stay.
    """

    html: str
    json: str
    note: str = ""
    workspace: str | None = None
    project: str = ""
    name: str = ""
    description: str = ""
    keep: int = 0


class Painter:
    """The process, from its start to ``close``; draws one page after the other."""

    def __init__(self) -> None:
        self._complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", __spec__.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def draw(self, pairs: Sequence["Pair"], place: Place, *, at: datetime, metadata: Mapping[str, str]) -> str | None:
        """The run's id in Evidently's workspace, or nothing without one; ``OSError`` where no page could be drawn."""
        told = {"pairs": [_plain(pair) for pair in pairs], "place": asdict(place), "at": at.isoformat()}
        line = self._asked(json.dumps({**told, "metadata": dict(metadata)}))
        if not line:
            raise OSError(f"Evidently's page could not be drawn: {self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise OSError(f"Evidently's page could not be drawn: {answer['error']}")
        return answer["run"]

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.communicate()
        self._complaints.close()

    def _asked(self, told: str) -> str:
        """Its answer; nothing where it dies, or is killed after ``TIMEOUT_S``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Timer(TIMEOUT_S, self._process.kill)
        late.start()
        try:
            self._process.stdin.write(told + "\n")
            self._process.stdin.flush()
            return self._process.stdout.readline()
        except OSError:  # it has died
            return ""
        finally:
            late.cancel()

    def _last_words(self) -> str:
        self._process.kill()
        code = self._process.wait()
        self._complaints.seek(0)
        lines = self._complaints.read().strip().splitlines()
        return lines[-1] if lines else f"its process ended with {code}"


def _plain(pair: "Pair") -> dict[str, Any]:
    def signals(found: Signals) -> dict[str, Any]:
        kinds = {"numbers": found.numbers, "classes": found.classes}
        return {kind: {name: values.tolist() for name, values in of.items()} for kind, of in kinds.items()}

    return {
        "reference": signals(pair.reference),
        "current": signals(pair.current),
        "thresholds": dict(pair.thresholds),
        "distances": dict(pair.distances),
    }


def _signals(told: Mapping[str, Any]) -> Signals:
    numbers = {name: np.asarray(values, dtype=np.float64) for name, values in told["numbers"].items()}
    return Signals(numbers, {name: np.asarray(values, dtype=str) for name, values in told["classes"].items()})


def _draw(told: Mapping[str, Any]) -> str | None:
    from lepton_platform.monitoring.evidently_report import DriftReport, Pair

    pairs = [
        Pair(_signals(one["reference"]), _signals(one["current"]), one["thresholds"], one["distances"])
        for one in told["pairs"]
    ]
    place = Place(**told["place"])
    report = DriftReport(pairs, at=datetime.fromisoformat(told["at"]), metadata=told["metadata"])
    report.write(Path(place.html), Path(place.json), place.note)
    if place.workspace is None:
        return None
    return report.save(
        Path(place.workspace), place.project, name=place.name, description=place.description, keep=place.keep
    )


def main() -> None:
    """Until there is nobody any more who could ask."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    from lepton_platform.monitoring import evidently_report

    evidently_report.load()
    for line in sys.stdin:
        try:
            answer = {"run": _draw(json.loads(line))}
        except Exception as error:  # whatever Evidently may raise: who asked has a verdict to write
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
