"""The loop's state and the machine's, as Prometheus is told: gauges made anew for each scrape, so that none outlives its cause."""

import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lepton_platform.gateway.gpus import Gpu
from lepton_platform.gateway.loop import STATES, State

if TYPE_CHECKING:
    from prometheus_client import Metric


def families(state: State) -> "Iterator[Metric]":
    """Drift, quality, alerts and requests of every task. What is not known has no series."""
    yield from _drift(state)
    yield from _served(state)
    yield from _agreed(state)
    yield from _asked(state)
    yield _one("lepton_state_read_timestamp_seconds", "When the loop's state was read last.", state.read_at)


def _drift(state: State) -> "Iterator[Metric]":
    verdict = _gauge("lepton_drift_verdict", "1 at the last check's verdict.", "task", "state")
    checked = _gauge("lepton_drift_checked_timestamp_seconds", "When drift was checked last.", "task")
    rows = _gauge("lepton_drift_window_rows", "Predictions that were compared.", "task")
    distance = _gauge("lepton_drift_distance", "From the training rows, 0 to 1.", "task", "signal")
    threshold = _gauge("lepton_drift_threshold", "The distance beyond which a signal has drifted.", "task", "signal")
    for task, found in state.tasks.items():
        if found.drift is None:
            continue
        for name in STATES:
            verdict.add_metric([task, name], float(name == found.drift.state))
        checked.add_metric([task], found.drift.checked_at)
        rows.add_metric([task], found.drift.rows)
        for signal in found.drift.signals:
            distance.add_metric([task, signal.name], signal.distance)
            threshold.add_metric([task, signal.name], signal.threshold)
    yield from (verdict, checked, rows, distance, threshold)


def _served(state: State) -> "Iterator[Metric]":
    """The served quality by the task's own figure (accuracy, AP50, word accuracy), as its check wrote it into the book."""
    verdict = _gauge("lepton_served_quality_verdict", "1 at the last check's verdict on quality.", "task", "state")
    checked = _gauge("lepton_served_quality_checked_timestamp_seconds", "As of when quality was judged last.", "task")
    labels = ("task", "model", "figure")
    figures = {
        "estimate": _gauge("lepton_served_quality", "The task's figure on labelled answers.", *labels),
        "low": _gauge("lepton_served_quality_low", "The lower end of its 95 % interval.", *labels),
        "high": _gauge("lepton_served_quality_high", "The upper end of its 95 % interval.", *labels),
        "tested": _gauge("lepton_tested_quality", "The same figure on the frozen test.", *labels),
    }
    for task, state_of in state.tasks.items():
        found = state_of.served
        if found is None:
            continue
        for name in STATES:
            verdict.add_metric([task, name], float(name == found.state))
        checked.add_metric([task], datetime.fromisoformat(found.as_of).timestamp())
        for name, family in figures.items():
            if getattr(found, name) is not None:
                family.add_metric([task, found.model, found.name], getattr(found, name))
    yield from (verdict, checked, *figures.values())


def _agreed(state: State) -> "Iterator[Metric]":
    """The quick figure beside it: how far answers of the last days agree with what people said."""
    names = {
        "lepton_label_agreement": "How far labelled answers agree with what people said; of labels, the share right.",
        "lepton_label_agreement_low": "The lower end of its 95 % interval.",
        "lepton_label_agreement_high": "The upper end of its 95 % interval.",
        "lepton_labelled_answers": "Answers of the last days that people said the truth of.",
    }
    told = [_gauge(name, text, "task", "model") for name, text in names.items()]
    for task, state_of in state.tasks.items():
        for tag, found in state_of.agreed.items():
            for family, value in zip(told, (found.share, *found.interval(), found.labelled), strict=True):
                family.add_metric([task, tag], value)
    yield from told


def _asked(state: State) -> "Iterator[Metric]":
    from lepton_platform.monitoring.alerts import Kind
    from lepton_platform.monitoring.retraining import OPEN

    alerts = _gauge("lepton_alert_open", "Is an alert of this kind open?", "task", "kind")
    is_open = {(alert.task, alert.kind) for alert in state.alerts}
    known = {(task, kind) for task in state.tasks for kind in get_args(Kind)}
    for task, kind in sorted(is_open | known):
        alerts.add_metric([task, kind], float((task, kind) in is_open))
    waiting = _gauge("lepton_retrain_open", "Has a retraining been asked for that has not ended?", "task")
    when = _gauge("lepton_retrain_requested_timestamp_seconds", "When one was asked for last.", "task")
    for task, found in state.tasks.items():
        waiting.add_metric([task], float(found.retrain is not None and found.retrain.state in OPEN))
        if found.retrain is not None:
            when.add_metric([task], found.retrain.requested_at.timestamp())
    yield from (alerts, waiting, when)


def machine(folder: Path, cards: Sequence[Gpu]) -> "Iterator[Metric]":
    """The disk that ``folder`` lies on, and the graphics processors, where there are any."""
    disk = shutil.disk_usage(folder)
    yield _one("lepton_disk_free_bytes", "Free where the logs and the state are written.", disk.free)
    yield _one("lepton_disk_size_bytes", "All of it.", disk.total)
    if not cards:
        return
    told = {
        "busy_ratio": ("Share of the time in which it computes.", lambda card: card.busy),
        "memory_used_bytes": ("Memory in use.", lambda card: card.memory_used_bytes),
        "memory_size_bytes": ("All of its memory.", lambda card: card.memory_bytes),
        "temperature_celsius": ("How hot it is.", lambda card: card.temperature_c),
        "power_watts": ("What it draws.", lambda card: card.power_w),
    }
    for name, (text, value) in told.items():
        family = _gauge(f"lepton_gpu_{name}", text, "gpu", "name")
        for card in cards:
            if value(card) is not None:
                family.add_metric([str(card.index), card.name], value(card))
        yield family


def _gauge(name: str, text: str, *labels: str) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, labels=labels)


def _one(name: str, text: str, value: float) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, value=value)
