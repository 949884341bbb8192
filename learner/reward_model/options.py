"""Options of the training of a reward model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rollout.component import StrictModel


class OptimisationConfig(StrictModel):
    """How a reward model is optimised."""

    num_epochs: int = Field(1, ge=1, description="Passes over the training pairs, at most.")
    num_steps: int | None = Field(None, ge=1, description="Optimiser steps, at most; none is no such limit.")
    batch_size: int = Field(32, ge=1, description="Pairs of one optimiser step.")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="Pairs whose activations are held at one time, to save memory; the step stays the same and costs "
        "one more forward pass. None: the whole batch.",
    )
    lr: float = Field(1e-4, gt=0.0, description="Highest learning rate of AdamW.")
    warmup_frac: float = Field(
        0.1, ge=0.0, le=1.0, description="Share of the steps in which the rate rises; it falls to zero by a cosine."
    )
    weight_decay: float = Field(0.0, ge=0.0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0.0, description="Gradients are scaled down to this norm.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of matrix products; the weights that are trained and saved stay float32."
    )
