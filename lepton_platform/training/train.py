"""The stage ``model``: a trained network, from the training set's folder to safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.data.dataset import Dataset
from lepton_platform.stage import Progress, StageFailed, StageResult
from lepton_platform.training.params import TrainParams
from lepton_platform.training.part import ModelPart
from lepton_platform.training.weights import CONFIG, HISTORY, WEIGHTS, digest, parameter_count, read_config, write_json
from lepton_platform.training.world import World

if TYPE_CHECKING:
    import pyarrow as pa

    from lepton_platform.training.fit import Fit


@dataclass(frozen=True)
class Job:
    """All that a training is made of; every process of it is given the same."""

    dataset: Path
    out: Path
    params: TrainParams
    part: ModelPart
    scratch: Path
    cache: Path


def model(
    *,
    dataset: Path,
    out: Path,
    params: TrainParams,
    model: ModelPart,
    scratch: Path,
    cache: Path,
    progress: Progress,
) -> StageResult:
    """Fit the task's network; leave ``model.safetensors``, ``config.json``, ``history.json``, curves/ and the learner's files.

    The weights are those of the best evaluation on the validation rows. Killed, it goes on from the last checkpoint in
    ``scratch`` and ends with the same bytes. With more than one process it runs under torchrun.
    """
    job = Job(dataset, out, params, model, scratch, cache)
    if (processes := _process_count(params)) > 1:
        from lepton_platform.training.distributed import launch

        return launch(job, processes, progress)
    return train(job, World(), progress)


def _process_count(params: TrainParams) -> int:
    """As many as asked for, else one for every visible GPU, else one."""
    if params.processes is not None:
        return params.processes
    from lepton_platform.training.devices import choose_device, visible_gpus

    return max(visible_gpus(), 1) if choose_device(params.device).type == "cuda" else 1


def train(job: Job, world: World, progress: Progress) -> StageResult:
    """This process's part of the training; the first process writes the files and tells the result."""
    import torch

    from lepton_platform.training.devices import choose_device, choose_precision, reproducible
    from lepton_platform.training.fit import Fit

    params, learner = job.params, job.part.LEARNER
    rows = _rows(job, "train")
    if world.first:
        config = {**learner.configure(params.network, rows, job.out, job.cache), "seed": params.seed}
        write_json(job.out / CONFIG, config)
    world.wait()
    config = read_config(job.out)
    samples = learner.encode(config, job.out, rows, training=True)
    validation = learner.encode(config, job.out, _rows(job, "validation"))
    device = choose_device(params.device, world.rank)
    with reproducible(params.threads):
        torch.manual_seed(params.seed)
        network = learner.build(config)
        learner.start(network, config, job.cache)
        sizes = [int(n) for n in samples.sizes]
        run_id = digest([params.model_dump(mode="json"), config, sizes, torch.__version__, device.type])
        fit = Fit(
            network=network.to(device),
            learner=learner,
            train=samples,
            validation=validation,
            params=params,
            device=device,
            precision=choose_precision(params.precision, device),
            world=world,
            scratch=job.scratch,
            run_id=run_id,
            progress=progress if world.first else _unseen,
        )
        fit.run()
    return _leave(job, fit, config) if world.first else StageResult()


def _unseen(done: int, total: int, values: Mapping[str, float] | None = None) -> None:
    """The other processes' progress."""


def _rows(job: Job, split: str) -> pa.Table:
    """The rows of a split, the learner's columns only; of the training rows as many as are asked for."""
    import numpy as np

    found = Dataset(job.dataset / split)
    try:
        rows = found.read(list(job.part.LEARNER.columns))
    except (FileNotFoundError, KeyError) as error:
        raise StageFailed(f"The training set in {job.dataset} cannot be read: {error}") from None
    if not rows.num_rows:
        raise StageFailed(f"The split '{split}' of {job.dataset} is empty: there is nothing to learn from.")
    wanted = job.params.max_train_rows
    if split == "train" and wanted is not None and wanted < rows.num_rows:
        chosen = np.random.default_rng(job.params.seed).permutation(rows.num_rows)[:wanted]
        rows = rows.take(np.sort(chosen))
    return rows


def _leave(job: Job, fit: Fit, config: Mapping[str, Any]) -> StageResult:
    """Write the weights and the history; say the rest."""
    from lepton_platform.training.curves import learning_curves_png, write_curves
    from lepton_platform.training.devices import describe, peak_memory_bytes
    from lepton_platform.training.weights import save_weights, snapshot

    state, speed = fit.state, fit.speed
    history = {
        "steps": state.steps,
        "evaluations": state.evaluations,
        "best_step": state.best_step,
        "best_by": job.params.best_by,
        "planned_steps": fit.plan.total,
        "stopped_early": state.stopped_early,
        "rows": {"train": len(fit.train.sizes), "validation": len(fit.validation.sizes)},
    }
    save_weights(snapshot(fit.network), job.out / WEIGHTS)
    write_json(job.out / HISTORY, history)
    write_curves(history, job.out)
    best = next(e for e in state.evaluations if e["step"] == state.best_step)
    measures = sorted(best.keys() - {"step"}, key=lambda name: (name == "loss", name))  # what people ask for first
    metrics = {f"validation_{name}": best[name] for name in measures}
    metadata = {
        "parameters": parameter_count(fit.network),
        "trained_parameters": parameter_count(fit.network, trained_only=True),
        "device": describe(fit.device),
        "precision": str(fit.precision.dtype or "float32").removeprefix("torch."),
        "processes": fit.world.size,
        "threads": job.params.threads,
        "steps": state.step,
        "best_step": state.best_step,
        "rows_per_s": round(speed.rows_per_s, 1),
        "training_s": round(speed.training_s, 1),
        "evaluation_s": round(speed.evaluation_s, 1),
        "seconds_per_epoch": [round(s, 1) for s in speed.epoch_s],
        "learning_curves_png": learning_curves_png(history),
        **peak_memory_bytes(fit.device),
    }
    return StageResult(rows=len(fit.train.sizes), metrics=metrics, metadata=metadata)
