"""Progress of long work: a bar on a terminal, a line a minute elsewhere."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lepton_platform.stage import Progress

LINE_EVERY_S = 60.0


def _figures(values: Mapping[str, float] | None) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in (values or {}).items())


def lines(label: str) -> Progress:
    """For a log: at most a line a minute."""
    last = time.monotonic()

    def progress(done: int, total: int, values: Mapping[str, float] | None = None) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            print(f"{label}: {done}/{total} {_figures(values)}".rstrip(), file=sys.stderr, flush=True)

    return progress


@contextmanager
def bars() -> Iterator["StageBars"]:
    """Bars for the stages of a run, on stderr."""
    if not sys.stderr.isatty():
        yield StageBars(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as shown:
        yield StageBars(shown)


class StageBars:
    """Gives each stage its progress callback."""

    def __init__(self, shown) -> None:  # rich.progress.Progress | None
        self.shown = shown

    def watch(self, task: str, stage: str) -> Progress:
        label = f"{task}/{stage}"
        if self.shown is None:
            print(f"{label} …", file=sys.stderr, flush=True)
            return lines(label)
        bar = self.shown.add_task(label, total=None, figures="")

        def progress(done: int, total: int, values: Mapping[str, float] | None = None) -> None:
            self.shown.update(bar, completed=done, total=total, figures=_figures(values))

        self.finish_others(bar)
        return progress

    def finish_others(self, current) -> None:
        """The stages run one after the other: when one begins, those before it are over."""
        for bar in self.shown.tasks:
            if bar.id != current and not bar.finished:
                self.shown.update(bar.id, total=bar.total or 1, completed=bar.total or 1)
                self.shown.stop_task(bar.id)
