"""Fit a network: the loop, and nothing that knows what is learnt.

The same seed gives the same bits. A step is a mean over its batch however the batch is computed: in one piece, in
micro-batches, or by several processes. Each micro-batch draws its dropout from its own seed, so it makes no difference
who computes it, nor whether the run was killed in between.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lepton_platform.models.batch import Batch
from lepton_platform.stage import Progress, StageFailed
from lepton_platform.training.batches import batches_in_epoch, by_size, epoch_batches, mixed_seed, shares
from lepton_platform.training.checkpoint import (
    Checkpoint,
    State,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from lepton_platform.training.devices import Precision
from lepton_platform.training.loading import Part, load
from lepton_platform.training.optimizer import build_optimizer, freeze, schedule, set_learning_rate, shrink, thaw
from lepton_platform.training.params import TrainParams
from lepton_platform.training.part import Learner, Samples
from lepton_platform.training.settled import settle
from lepton_platform.training.weights import snapshot
from lepton_platform.training.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

LAST = "last"  # in place of a measure: the later, the better
EVALUATION_BATCHES = 2  # an evaluation keeps no gradients: its batches may be larger


@dataclass(frozen=True)
class Plan:
    """How long a training is and when it looks at the validation rows."""

    per_epoch: int
    total: int
    parts: int  # micro-batches in a batch
    evaluations_per_epoch: int

    @classmethod
    def of(cls, rows: int, params: TrainParams, processes: int) -> Plan:
        per_epoch = batches_in_epoch(rows, params.batch_rows)
        total = min(params.epochs * per_epoch, params.max_steps or math.inf)
        parts = -(-params.micro_batches // processes) * processes
        return cls(per_epoch, int(total), parts, params.evaluations_per_epoch)

    def evaluates(self, done: int) -> bool:
        """After ``done`` steps?"""
        many, within = self.evaluations_per_epoch, (done - 1) % self.per_epoch + 1
        return done == self.total or within * many // self.per_epoch > (within - 1) * many // self.per_epoch


@dataclass
class Speed:
    """What the clock says of this process; none of it is an output."""

    rows: int = 0
    training_s: float = 0.0
    evaluation_s: float = 0.0
    epoch_s: list[float] = field(default_factory=list)

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.training_s if self.training_s else 0.0


@dataclass
class Fit:
    """A training that can be stopped at any instant and taken up again."""

    network: nn.Module
    learner: Learner
    train: Samples
    validation: Samples
    params: TrainParams
    device: torch.device
    precision: Precision
    world: World
    scratch: Path
    run_id: str  # what a checkpoint must belong to
    progress: Progress

    def __post_init__(self) -> None:
        self.learning = self.network  # what takes a batch's inputs
        self.plan = Plan.of(len(self.train.sizes), self.params, self.world.size)
        frozen, thaws = freeze(self.network, self.params.freeze), self.params.thaw_fraction
        self.later = frozen if thaws is not None else []  # frozen until ``thaw_step``
        self.thaw_step = math.ceil(self.plan.total * (thaws or 0))
        self.frozen = {name for name, p in self.network.named_parameters() if not p.requires_grad} - set(self.later)
        depths = self.learner.depths(self.network)
        self.optimizer = build_optimizer(self.network, self.params, depths, self.later)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.scaled)
        self.state, self.speed = State(), Speed()
        self.best: Mapping[str, Tensor] = {}
        self.shown: dict[str, float] = {}
        self._order: tuple[int, list[NDArray]] | None = None

    def run(self) -> State:
        """Train to the end and leave the best weights in the network."""
        self._settle()
        self._resume()
        self._share()
        batches = load(self.train, self._parts(), self.params.loader_processes)
        saved = started = time.monotonic()
        losses: list[Tensor] = []
        while self.state.step < self.plan.total and not self.state.stopped_early:
            if self.later and self.state.step == self.thaw_step:
                self._share()
            begun = time.monotonic()
            count = len(self._batch(self.state.step))
            loss, norm = self._step(batches, count)
            losses.append(loss)
            self.speed.rows += count
            done = self.state.step
            logs = done % self.params.log_every_steps == 0 or done == self.plan.total or self.plan.evaluates(done)
            if logs:
                self._log(losses, norm)
                losses = []
            self.speed.training_s += time.monotonic() - begun
            if self.plan.evaluates(done):
                self._evaluate()
            if done % self.plan.per_epoch == 0:
                self.speed.epoch_s.append(time.monotonic() - started)
                started = time.monotonic()
            self.progress(done, self.plan.total, self.shown)
            if logs and time.monotonic() - saved >= self.params.checkpoint_every_s:
                self._save()
                saved = time.monotonic()
        self.network.load_state_dict(dict(self.best), strict=False)
        return self.state

    def _settle(self) -> None:
        """What is frozen to the end is computed once a row."""
        cut = getattr(self.learner, "settled", None)
        found = cut(self.network, self.frozen) if cut is not None and not self.later else None
        if found is not None:
            many = self.params.batch_rows * EVALUATION_BATCHES
            self.train, self.validation = (
                settle(found, samples, many, self.device, self.precision) for samples in (self.train, self.validation)
            )
            self.learning = found.rest

    def _share(self) -> None:
        """The network as the processes exchange it, which knows what is trained from now on."""
        if self.state.step >= self.thaw_step:
            thaw(self.network, self.later)
        self.shared = self.world.shared(self.learning, self.device)

    # --- one step

    def _batch(self, step: int) -> NDArray:
        epoch, within = divmod(step, self.plan.per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = epoch_batches(self.train.sizes, self.params.batch_rows, self.params.seed, epoch)
            self._order = epoch, order
        return self._order[1][within]

    def _parts(self) -> Iterator[Part]:
        """What this process learns from, in order, from where the training stands to its end."""
        for step in range(self.state.step, self.plan.total):
            rows = self._batch(step)
            parts = shares(rows, self.plan.parts)
            # where there are fewer rows than processes, one row without weight keeps a process in step with the others
            turns = range(self.world.rank, len(parts), self.world.size)
            mine = [number for number in turns if len(parts[number]) or self.world.size > 1]
            for number in mine:
                some, seed = parts[number], mixed_seed(self.params.seed, step, number)
                yield Part(some if len(some) else rows[:1], bool(len(some)), seed, number == mine[-1])

    def _step(self, batches: Iterator[tuple[Part, Batch]], count: int) -> tuple[Tensor, Tensor]:
        """Learn from a batch of ``count`` rows; returns this process's share of the mean loss, and the gradient's norm."""
        step = self.state.step
        factor = schedule(step, self.plan.total, self.params)
        set_learning_rate(self.optimizer, self.params.learning_rate * factor)
        self.shared.train()
        mean = torch.zeros((), dtype=torch.float64, device=self.device)
        last = False
        while not last:
            part, batch = next(batches)
            last = part.last
            with self._without_exchange(last):
                mean += self._learn(part, batch.to(self.device), count)
        self.scaler.unscale_(self.optimizer)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.params.clip_norm or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        shrink(self.optimizer, self.params.l1)
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        return mean, norm

    def _learn(self, part: Part, batch: Batch, count: int) -> Tensor:
        """Add the gradients of a part of a batch of ``count`` rows; returns its share of the batch's mean loss."""
        torch.manual_seed(part.seed)
        with self.precision.autocast():
            outputs = self.shared(**batch.inputs)
        loss = self.learner.losses(outputs, batch, self.params.label_smoothing).sum() / count
        loss = loss * float(part.weight)
        # The processes' gradients are averaged: their sum is wanted.
        self.scaler.scale(loss * self.world.size).backward()
        return loss.detach().double()

    def _without_exchange(self, last: bool) -> AbstractContextManager:
        """Gradients are exchanged once a step, with its last part."""
        return nullcontext() if last or self.world.size == 1 else self.world.alone(self.shared)

    # --- what is written down

    def _log(self, losses: list[Tensor], norm: Tensor) -> None:
        (loss,) = self.world.total([torch.stack(losses).sum().item()])
        loss /= len(losses)
        step, rate = self.state.step, self.optimizer.param_groups
        if not math.isfinite(loss):
            raise StageFailed(
                f"Training diverged: the loss at step {step} is {loss}. Lower train.learning_rate "
                f"({self.params.learning_rate}), set train.clip_norm, or raise train.warmup_fraction."
            )
        learning_rate = rate[0]["lr"] / rate[0]["scale"]
        entry = {"step": step, "loss": loss, "learning_rate": learning_rate}
        if math.isfinite(found := norm.item()):  # float16 may overflow once: the step was skipped
            entry["gradient_norm"] = found
        self.state.steps.append(entry)
        self.shown |= {"loss": loss, "learning_rate": learning_rate, "rows_per_s": self.speed.rows_per_s}

    def _evaluate(self) -> None:
        begun = time.monotonic()
        measures = self.measure(self.validation)
        state, name = self.state, self.params.best_by
        if name not in measures and name != LAST:
            raise StageFailed(f"train.best_by: '{name}' is not measured. There are: {', '.join(measures)}, {LAST}.")
        value = -state.step if name == LAST else measures[name] if name == "loss" else -measures[name]
        state.evaluations.append({"step": state.step, **measures})
        if state.best_value is None or value < state.best_value:
            state.best_value, state.best_step, state.since_best = value, state.step, 0
            self.best = snapshot(self.network, self.frozen)
        else:
            state.since_best += 1
            state.stopped_early = self.params.patience is not None and state.since_best >= self.params.patience
        self.shown |= {f"validation_{key}": number for key, number in measures.items()}
        self.speed.evaluation_s += time.monotonic() - begun

    @torch.inference_mode()
    def measure(self, samples: Samples) -> dict[str, float]:
        """The means of the learner's measures over all rows, the same in every process."""
        self.learning.eval()
        sums: dict[str, float] = {}
        batches = by_size(samples.sizes, self.params.batch_rows * EVALUATION_BATCHES)
        for rows in batches[self.world.rank :: self.world.size] or batches[:1]:
            batch = samples.batch(rows).to(self.device)
            with self.precision.autocast():
                outputs = self.learning(**batch.inputs)
            counts = self.world.rank < len(batches)  # with more processes than batches some only keep step
            for name, values in self.learner.measures(outputs, batch).items():
                sums[name] = sums.get(name, 0.0) + values.double().sum().item() * counts
        totals = self.world.total(list(sums.values()))
        return {name: total / len(samples.sizes) for name, total in zip(sums, totals, strict=True)}

    # --- checkpoints

    def _save(self) -> None:
        if not self.world.first:
            return
        self.state.scaler = self.scaler.state_dict()
        moments = optimizer_tensors(self.optimizer, self.network)
        found = Checkpoint(self.state, snapshot(self.network, self.frozen), moments, self.best)
        save_checkpoint(self.scratch, self.run_id, found)

    def _resume(self) -> None:
        found = load_checkpoint(self.scratch, self.run_id)
        self.world.wait()
        if found is None:
            return
        self.state, self.best = found.state, found.best
        self.network.load_state_dict(dict(found.network), strict=False)
        restore_optimizer(self.optimizer, self.network, found.optimizer)
        if self.state.scaler:
            self.scaler.load_state_dict(self.state.scaler)
