"""Learning curves: an image for the UI, and tables that `dvc plots` draws."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TRAINING, VALIDATION = "curves/training.csv", "curves/validation.csv"  # in the model's folder


def write_curves(history: Mapping[str, Any], folder: Path) -> None:
    """The tables ``TRAINING`` and ``VALIDATION``: a row a step, first the column ``step``.

    DVC draws a table's last column unless it is told which: of the validation's that is the learner's first measure. They
    are two tables, since DVC would join the rows of one file by their place.
    """
    (folder / TRAINING).parent.mkdir(exist_ok=True)
    _write(folder / TRAINING, history["steps"])
    _write(folder / VALIDATION, [_first_measure_last(row) for row in history["evaluations"]])


def _first_measure_last(row: Mapping[str, float]) -> dict[str, float]:
    """The step, the loss, and the measures from the last to the first."""
    measures = [name for name in row if name not in ("step", "loss")]
    return {name: row[name] for name in ("step", "loss", *reversed(measures))}


def _write(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """A cell is empty where a step did not measure it, as the gradient's norm where a loss in half precision overflowed."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns or ["step", "loss"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def learning_curves_png(history: Mapping[str, Any]) -> str:
    """Loss, validation measures and learning rate over the steps; a PNG in base64."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, evaluations = history["steps"], history["evaluations"]
    measures = [name for name in (evaluations[0] if evaluations else {}) if name not in ("step", "loss")]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, 3 if measures else 2)
    at, seen = [e["step"] for e in steps], [e["step"] for e in evaluations]
    panels[0].plot(at, [e["loss"] for e in steps], color="#8da0cb", label="training")
    panels[0].plot(seen, [e["loss"] for e in evaluations], "o-", color="#d1495b", label="validation")
    panels[0].axvline(history["best_step"], color="#666", linewidth=0.8, linestyle=":", label="kept")
    panels[0].set_title("loss")
    panels[0].legend(frameon=False)
    for name in measures:
        panels[1].plot(seen, [e[name] for e in evaluations], "o-", label=name)
    if measures:
        panels[1].set_title("validation")
        panels[1].legend(frameon=False)
    panels[-1].plot(at, [e["learning_rate"] for e in steps], color="#4d9078")
    panels[-1].set_title("learning rate")
    for panel in panels:
        panel.set_xlabel("step")
        panel.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return base64.b64encode(stream.getvalue()).decode("ascii")
