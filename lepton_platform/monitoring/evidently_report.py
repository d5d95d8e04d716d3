"""Evidently's door: a report of two samples with our distances and thresholds, saved where ``evidently ui`` looks.

Evidently draws each column from the sample that it is given, shows the distance that the verdict was made from (of more
rows, where sketches have counted them) and decides by our threshold: the page says what the verdict says.
"""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.monitoring.signals import Signals

if TYPE_CHECKING:
    from evidently.core.report import Snapshot
    from evidently.ui.workspace import Project, Workspace

os.environ.setdefault("DO_NOT_TRACK", "1")  # its telemetry, read at import

KS, TV = "ks_distance", "total_variation"
_SHOWN = {KS: "Kolmogorov-Smirnov distance", TV: "total variation distance"}


@dataclass(frozen=True)
class Pair:
    """Two samples of the same signals (numbers and classes); of those that are judged the threshold and the distance."""

    reference: Signals
    current: Signals
    thresholds: Mapping[str, float]
    distances: Mapping[str, float]

    def methods(self) -> dict[str, str]:
        return {name: KS if name in self.reference.numbers else TV for name in self.thresholds}


class DriftReport:
    """The report of one window; ``pairs`` may have different references, their signals have different names."""

    def __init__(self, pairs: list[Pair], *, at: datetime, metadata: Mapping[str, str]) -> None:
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import DriftedColumnsCount, ValueDrift

        _register({name: distance for pair in pairs for name, distance in pair.distances.items()})
        methods = {name: method for pair in pairs for name, method in pair.methods().items()}
        thresholds = {name: float(t) for pair in pairs for name, t in pair.thresholds.items()}
        definition = DataDefinition(
            numerical_columns=[name for name, method in methods.items() if method == KS],
            categorical_columns=[name for name, method in methods.items() if method == TV],
        )
        any_column = 1 / len(methods)  # the test fails at one drifted column
        share = DriftedColumnsCount(
            columns=list(methods),
            drift_share=any_column,
            per_column_method=dict(methods),
            per_column_threshold=thresholds,
        )
        values = [ValueDrift(column=name, method=methods[name], threshold=thresholds[name]) for name in methods]
        report = Report([share, *values], metadata=dict(metadata), include_tests=True)
        frames = (_frame([p.current for p in pairs], methods), _frame([p.reference for p in pairs], methods))
        current, reference = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the correlations of a column that is constant
            self.snapshot: Snapshot = report.run(current, reference, timestamp=at)

    def save(self, workspace: Path, project: str, *, name: str, description: str, keep: int) -> str:
        """Add the report to the project, which is made if need be; the oldest beyond ``keep`` go. The report's id."""
        from evidently.ui.workspace import Workspace

        workspace.mkdir(parents=True, exist_ok=True)
        opened = Workspace.create(str(workspace))
        home = _project(opened, project, description)
        saved = opened.add_run(home.id, self.snapshot, name=name)
        runs = sorted(opened.list_runs(home.id), key=str)  # their ids begin with their time
        for old in runs[: max(0, len(runs) - keep)]:
            opened.delete_run(home.id, old)
        return str(saved.id)

    def write(self, html: Path, json: Path, note: str) -> None:
        """Evidently's page, with ``note`` above it, and its JSON."""
        for path, save in ((html, self.snapshot.save_html), (json, self.snapshot.save_json)):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.new-{os.getpid()}")
            save(str(part))
            if path == html and note:
                page = part.read_text("utf-8").replace("<body>", f"<body><p>{escape(note)}</p>", 1)
                part.write_text(page, "utf-8")
            os.replace(part, path)


def load() -> None:
    """Import what a report needs: seconds, the first time."""
    import evidently
    import evidently.ui.workspace  # noqa: F401


def _register(measured: Mapping[str, float]) -> None:
    """Make the distances known to Evidently under a test's name: its reports, read by another process, hold no code."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def judge(reference: Any, current: Any, _type: Any, threshold: float):
        distance = measured[str(current.name)]
        return distance, distance > threshold

    for name, column_type in ((KS, ColumnType.Numerical), (TV, ColumnType.Categorical)):
        shown = _SHOWN[name]
        register_stattest(StatTest(name, shown, allowed_feature_types=[column_type], default_threshold=1.0), judge)


def _frame(samples: list[Signals], methods: Mapping[str, str]) -> Any:
    """One frame of all samples: side by side where they are of the same rows, else one below the other, with gaps."""
    import pandas as pd

    parts = [pd.DataFrame({n: v for n, v in {**s.numbers, **s.classes}.items() if n in methods}) for s in samples]
    same_rows = len({len(part) for part in parts}) == 1
    frame = pd.concat(parts, axis="columns" if same_rows else "index", ignore_index=not same_rows)
    return frame.loc[:, list(methods)]


def _project(workspace: "Workspace", name: str, description: str) -> "Project":
    found = [project for project in workspace.list_projects() if project.name == name]
    if found:
        return found[0]
    from evidently.sdk.models import DashboardModel, DashboardTabModel, PanelMetric
    from evidently.sdk.panels import line_plot_panel

    count = PanelMetric(metric="DriftedColumnsCount", metric_labels={"value_type": "count"}, legend="signals")
    distances = PanelMetric(metric="ValueDrift", legend="{{column}}")
    panels = [
        line_plot_panel(title="Signals that drifted", values=[count], size="full"),
        line_plot_panel(title="Distance from training", values=[distances], size="full"),
    ]
    project = workspace.create_project(name, description)
    tab = DashboardTabModel(title="Drift", panels=[panel.id for panel in panels])
    workspace.save_dashboard(project.id, DashboardModel(tabs=[tab], panels=panels))
    return project
