"""From encoded inputs to durable answers: model, media, log. What ``/predict`` and ``/stream`` share.

Media are written while the model runs; a row waits for both, and an answer for its row.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_platform.serving.batching import Batcher, Group
from lepton_platform.serving.bundle import Bundle
from lepton_platform.serving.engine import Engine
from lepton_platform.serving.log_reader import MIRRORED
from lepton_platform.serving.media_store import MediaStore, holds_media
from lepton_platform.serving.metrics import Metrics
from lepton_platform.serving.prediction_log import DurableLog, LogUnavailable
from lepton_platform.serving.protocols import Json, Parts

logger = logging.getLogger("lepton.serving")


@dataclass
class Running:
    """What lives between the start and the end of the service."""

    engine: Engine
    batcher: Batcher
    predictions: DurableLog
    mirrored: "Mirrored"
    feedback: DurableLog
    media: MediaStore
    threads: ThreadPoolExecutor  # one: what is encoded waits for its turn
    media_threads: ThreadPoolExecutor  # without media none is started


class Mirrored:
    """The log of answers that nobody is given, begun with the first of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log: DurableLog | None = None

    def log(self) -> DurableLog:
        """On the event loop only."""
        if self._log is None:
            self._log = DurableLog(self.folder, MIRRORED)
        return self._log

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


class Answering:
    """Answers inputs; made once, used by all requests."""

    def __init__(self, bundle: Bundle, metrics: Metrics, deployment: str | None) -> None:
        self.bundle, self.metrics, self.deployment = bundle, metrics, deployment
        self.labels = bundle.labels

    async def outputs(self, running: Running, parts: Parts) -> list[Any]:
        """The model alone: an output a part. ``Rejected`` (503) where it could not be in time."""
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[list[Any]] = loop.create_future()

        def modelled(group: Group) -> None:  # in a lane
            loop.call_soon_threadsafe(_settle, finished, group.outputs, group.error)

        running.batcher.submit(parts, modelled)
        return await finished

    async def answer(
        self,
        running: Running,
        inputs: Sequence[Any],
        parts: Sequence[Parts],
        started: float,
        outputs: list[Any] | None = None,
        mirrored: bool = False,
    ) -> tuple[list[Json], list[Json]]:
        """Model and log; returns when the answers' rows are durable: the answers, and what was logged beside each.

        ``parts``: of each input. ``outputs``: of all parts, where the model has run already. ``mirrored``: they are
        logged apart, and are no predictions that were given.
        """
        log = running.mirrored.log() if mirrored else running.predictions
        one = _Request(self, running, log, inputs, parts, started)
        if outputs is None:
            running.batcher.submit([part for each in parts for part in each], one.modelled)
        else:
            one.said(outputs)
        if one.kept is not None:
            running.media_threads.submit(_keep, running.media, one.logged, one.kept)
        named = await one.finished
        for answer in () if mirrored else named:
            self.metrics.predictions.labels(answer.get("label", "")).inc()
        return named, one.known


class _Request:
    """The inputs of one request on their way; its methods are called by whichever thread has done its part."""

    def __init__(
        self,
        answering: Answering,
        running: Running,
        log: DurableLog,
        inputs: Sequence[Any],
        parts: Sequence[Parts],
        started: float,
    ) -> None:
        self.answering, self.log, self.parts, self.started = answering, log, parts, started
        self.api = answering.bundle.api
        self.loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[list[Json]] = self.loop.create_future()
        self.logged = [self.api.logged(value) for value in inputs]
        self.kept: Future[list[Json]] | None = Future() if holds_media(self.logged) else None
        self.answers: list[Json] = []
        self.known: list[Json] = []
        self.said_at = 0.0

    def modelled(self, group: Group) -> None:  # in a lane
        if group.error is not None:
            self.settle(None, group.error)
            return
        self.answering.metrics.stage_seconds["queue"].observe(group.taken_at - group.waiting_since)
        self.said(group.outputs)

    def said(self, outputs: list[Any]) -> None:
        self.said_at = time.perf_counter()
        kept = self.kept
        if kept is None:
            self.record(outputs, self.logged)
        else:  # in a thread of the media's, or here if they are on the disk already
            kept.add_done_callback(lambda _: self.record(outputs, None))

    def record(self, outputs: list[Any], values: list[Json] | None) -> None:
        latency_ms = round((self.said_at - self.started) * 1e3, 3)
        try:
            if values is None:
                assert self.kept is not None
                values = self.kept.result()
            rows: list[Json] = []
            start = 0
            for value, one in zip(values, self.parts, strict=True):
                stop = start + len(one)
                answer, beside = self.api.answer(self.answering.labels, one, outputs[start:stop])
                start = stop
                self.answers.append(answer)
                self.known.append(beside)
                rows.append(self.row(value, answer, beside, latency_ms))
            self.log.submit(rows, self.durable)
        except Exception as error:  # this request's, not the lane's
            self.settle(None, error)

    def row(self, value: Json, answer: Json, beside: Json, latency_ms: float) -> Json:
        """The log's row; the log adds id and time."""
        made = {"model": self.answering.bundle.tag, "deployment": self.answering.deployment}
        return {**made, **value, **answer, **beside, "latency_ms": latency_ms}

    def durable(self, ids: "Future[list[str]]") -> None:  # in the log's writer
        error = ids.exception()
        self.answering.metrics.stage_seconds["log"].observe(time.perf_counter() - self.said_at)
        named = None if error else [{"id": i, **a} for i, a in zip(ids.result(), self.answers, strict=True)]
        self.settle(named, error)

    def settle(self, value: list[Json] | None, error: BaseException | None) -> None:
        self.loop.call_soon_threadsafe(_settle, self.finished, value, error)


def _settle(future: "asyncio.Future[Any]", value: Any, error: BaseException | None) -> None:
    if future.done():  # who asked is gone
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _keep(media: MediaStore, rows: list[Json], kept: "Future[list[Json]]") -> None:
    """In a thread of the media's."""
    try:
        kept.set_result(media.keep(rows))
    except OSError as error:
        logger.error("media of the predictions log cannot be written: %r", error)
        kept.set_exception(LogUnavailable(f"The log cannot be written: {error.strerror}."))
    except Exception as error:
        kept.set_exception(error)
