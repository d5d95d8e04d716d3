"""Every knob of training; the network's own are the task's (``network``, checked by its learner)."""

from typing import Any, Literal

from pydantic import Field, model_validator

from lepton_platform.stage import Params


class TrainParams(Params):
    """The section ``train``. The defaults are the demo profile's."""

    network: dict[str, Any] = Field(
        default_factory=dict, description="Which network, how large: the learner's section."
    )
    seed: int = Field(7, ge=0, lt=2**31)
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: LEPTON_DEVICE, then a GPU if there is one."
    )
    threads: int = Field(
        1,
        ge=1,
        description="On a CPU the bits depend on it, so it is a number and not the machine's. More are faster on cores "
        "that do nothing else, and far slower on shared ones: they wait for each other at every operation.",
    )
    processes: int | None = Field(None, ge=1, description="None: one for every visible GPU, one on a CPU.")
    loader_processes: int = Field(
        0,
        ge=0,
        description="That make batches ready meanwhile, each on a core of its own; the bits do not depend on it.",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="auto: float32 on a CPU, whatever it can do, so that its kind does not choose the model; on a GPU "
        "bfloat16 where it has it, else float16.",
    )

    epochs: int = Field(2, ge=1)
    max_steps: int | None = Field(None, ge=1, description="Stop after so many steps even if epochs are left.")
    batch_rows: int = Field(32, ge=1, description="Rows a step, over all processes and micro-batches.")
    micro_batches: int = Field(1, ge=1, description="Gradient accumulation: parts that a batch is computed in.")
    max_train_rows: int | None = Field(None, ge=1, description="Take so many training rows, chosen by the seed.")

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(5e-5, gt=0)
    head_learning_rate_factor: float = Field(10.0, gt=0, description="The untrained head learns faster than the rest.")
    layer_decay: float = Field(1.0, gt=0, le=1, description="Learning rate of a layer relative to the one above it.")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's.")
    warmup_fraction: float = Field(0.1, ge=0, le=1, description="Of all steps: the learning rate rises from zero.")
    decay: Literal["linear", "cosine", "constant"] = Field("linear", description="After the warm-up, to zero.")
    weight_decay: float = Field(0.01, ge=0, description="L2. AdamW: decoupled; Adam and SGD: in the gradient.")
    l1: float = Field(
        0.0, ge=0, description="L1, as a proximal step after the optimiser's: weights become exact zeros."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_norm: float | None = Field(1.0, gt=0, description="Of the whole gradient; None: no clipping.")
    freeze: list[str] = Field(
        default_factory=list,
        description="Patterns of parameters' names that are not trained. A text's encoder, all of it: its vectors are "
        "computed once, without dropout.",
    )
    thaw_fraction: float | None = Field(
        None, gt=0, lt=1, description="Of all steps: from then on what was frozen is trained, too; None: never."
    )

    evaluations_per_epoch: int = Field(1, ge=1)
    best_by: str = Field(
        "loss",
        description="The validation measure whose best weights are kept; 'loss': lowest; 'last': the last weights, where "
        "validation rows are too few or too unlike the others to choose by.",
    )
    patience: int | None = Field(3, ge=1, description="Evaluations without a better one before stopping; None: never.")
    log_every_steps: int = Field(10, ge=1)
    checkpoint_every_s: float = Field(60.0, ge=0, description="Seconds that a kill may cost.")

    @model_validator(mode="after")
    def _parts_have_rows(self) -> "TrainParams":
        if self.micro_batches > self.batch_rows:
            raise ValueError(f"micro_batches ({self.micro_batches}) is more than batch_rows ({self.batch_rows})")
        return self
