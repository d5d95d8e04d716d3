"""The overview in figures: the same samples that ``/metrics`` has, and the loop's state, put together a task at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from lepton_platform.gateway.gpus import Gpu
from lepton_platform.gateway.labelled import Agreed
from lepton_platform.gateway.loop import Drift, State, TaskState
from lepton_platform.gateway.routing import Route, Table, Target
from lepton_platform.gateway.samples import Samples, quantiles

Json = dict[str, Any]
PREDICT = "/v1/{task}/predict"
STAGES = ("preprocess", "queue", "model", "log")
ROLES = ("champion", "canary", "shadow")


def overview(table: Table, now: Samples, since: Samples, seconds: float, state: State, cards: Sequence[Gpu]) -> Json:
    """``now``: what is counted by now; ``since``: what of it came in the last ``seconds``."""
    window = max(seconds, 1e-3)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "window_s": round(seconds, 3),
        "state_read_at": _time(state.read_at),
        "tasks": [
            {
                "name": task,
                "versions": _versions(task, route, now, since, window),
                "requests": _requests(task, now, since, window),
                "stages": _stages(task, since),
                "batch_inputs": _mean_batch(task, since),
                **_loop(task, state),
            }
            for task, route in sorted(table.items())
        ],
        "alerts": [alert.as_dict() for alert in state.alerts],
        "machine": _machine(now, since, window, cards),
    }


def _requests(task: str, now: Samples, since: Samples, seconds: float) -> Json:
    """What users see of ``/predict``; ``total`` is since the gateway began, the rest of the window."""
    name = "lepton_gateway_requests_total"
    count = since.sum(name, task=task, route=PREDICT)
    errors = sum(v for found, v in since.each(name, task=task, route=PREDICT) if found["status"].startswith("5"))
    return {
        "total": int(now.sum(name, task=task, route=PREDICT)),
        "count": int(count),
        "per_second": count / seconds,
        "errors": int(errors),
        "error_share": errors / count if count else None,
        **quantiles(since.buckets("lepton_gateway_request_seconds", task=task, route=PREDICT)),
    }


def _stages(task: str, since: Samples) -> list[Json]:
    """Where the time goes in the workers, in the order of a request's way; in the shadow's, too."""
    return [
        {"name": stage, **quantiles(since.buckets("lepton_stage_seconds", task=task, stage=stage))} for stage in STAGES
    ]


def _mean_batch(task: str, since: Samples) -> float | None:
    batches = since.sum("lepton_batch_inputs_count", task=task)
    return since.sum("lepton_batch_inputs_sum", task=task) / batches if batches else None


def _versions(task: str, route: Route, now: Samples, since: Samples, seconds: float) -> list[Json]:
    told = zip(ROLES, (route.champion, route.canary, route.shadow), strict=True)
    return [_version(task, role, target, route, now, since, seconds) for role, target in told if target is not None]


def _version(task: str, role: str, target: Target, route: Route, now: Samples, since: Samples, seconds: float) -> Json:
    """A worker. ``percent``: of the requests; a shadow answers none, and is asked beside."""
    of = {"task": task, "role": role, "deployment": str(target.deployment)}
    canary = (100.0 if route.champion is None else route.percent) if route.canary is not None else 0.0
    of_route = {**of, "route": "/predict (mirrored)" if role == "shadow" else "/predict"}
    count = since.sum("lepton_requests_total", **of_route)
    told = since.each("lepton_requests_total", **of_route)
    failed = sum(value for found, value in told if found["status"].startswith("5"))
    return {
        "role": role,
        "model": target.tag,
        "deployment": target.deployment,
        "percent": {"champion": 100.0 - canary, "canary": canary, "shadow": 0.0}[role],
        "up": now.one("lepton_gateway_worker_up", task=task, role=role) == 1.0,
        "per_second": count / seconds,
        "errors": int(failed),
        "error_share": failed / count if count else None,
        "memory_bytes": now.one("lepton_process_resident_memory_bytes", **of),
        "cpu_cores": since.sum("lepton_process_cpu_seconds_total", **of) / seconds,
        "started_at": _time(now.one("lepton_process_start_time_seconds", **of)),
        **quantiles(since.buckets("lepton_request_seconds", **of_route)),
    }


def _loop(task: str, state: State) -> Json:
    found = state.tasks.get(task, TaskState())
    asked = found.retrain
    return {
        "serving_since": _time(found.serving_since),
        "drift": None if found.drift is None else _drift(found.drift),
        "served_quality": None if found.served is None else found.served.as_dict(),
        "label_agreement": [_agreed(tag, agreed) for tag, agreed in sorted(found.agreed.items())],
        "retrain": None
        if asked is None
        else {"reason": asked.reason, "requested_at": _time(asked.requested_at.timestamp()), "state": asked.state},
    }


def _drift(found: Drift) -> Json:
    return {**asdict(found), "checked_at": _time(found.checked_at)}


def _agreed(tag: str, found: Agreed) -> Json:
    low, high = found.interval()
    return {"model": tag, **asdict(found), "share": found.share, "low": low, "high": high}


def _machine(now: Samples, since: Samples, seconds: float, cards: Sequence[Gpu]) -> Json:
    return {
        "disk_free_bytes": now.one("lepton_disk_free_bytes"),
        "disk_size_bytes": now.one("lepton_disk_size_bytes"),
        "gateway_memory_bytes": now.one("lepton_gateway_process_resident_memory_bytes"),
        "gateway_cpu_cores": since.sum("lepton_gateway_process_cpu_seconds_total") / seconds,
        "gpus": [asdict(card) for card in cards],
    }


def _time(seconds: float | None) -> str | None:
    """ISO 8601, UTC; ``None`` of what was never."""
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def with_events(told: Json, events: Mapping[str, list[Json]]) -> Json:
    """The latest of every task's history beside its figures."""
    return {**told, "tasks": [{**task, "events": events.get(task["name"], [])} for task in told["tasks"]]}
