"""What a critic is asked for and what it answers with: its shape, its output, and the names in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from rollout.component import StrictModel

END_VALUES = "end_values"
"""Key of ``CriticOutput.extra``: [batch head quantile], the value after a row's last token. Asked for by
``Algorithm.needs_end_values``."""


class CriticConfig(StrictModel):
    """Shape of the critic's head. A scalar critic is one head with one quantile."""

    num_heads: int = Field(3, ge=1, le=64, description="Independent heads of the value ensemble.")
    num_quantiles: int = Field(200, ge=1, le=4096, description="Quantile levels of each head; 1 is a scalar critic.")
    monotonicity: Literal["sort", "cumsum", "none"] = Field(
        "sort", description="How each head's quantiles are kept in order."
    )
    head: Literal["quantile", "flow"] = Field(
        "quantile", description="'quantile': linear in the hidden state; 'flow': one step of a learned flow (DFPO)."
    )
    flow_hidden: int | None = Field(
        None, ge=1, description="Hidden units of the flow's velocity network; null: 64. With head 'flow' only."
    )
    prior_mean: float = Field(0.0, description="Mean of the value distribution before training, in reward units.")
    prior_scale: float = Field(1.0, gt=0.0, description="Scale of returns before training, in reward units.")

    @model_validator(mode="after")
    def _head_fits(self) -> CriticConfig:
        if self.head == "flow" and self.monotonicity != "sort":
            raise ValueError(
                f"head 'flow' sorts its quantiles, so monotonicity must be 'sort', got {self.monotonicity!r}"
            )
        if self.head != "flow" and self.flow_hidden is not None:
            raise ValueError("flow_hidden has no effect without head 'flow'; leave it out")
        return self


class VariationalCriticConfig(CriticConfig):
    """What the critic's model needs to know beside its heads, for methods such as VRPO; no part of a user's options.

    The algorithm derives it from its own options, so that no other method has an option that it would ignore.
    """

    bottleneck_dim: int | None = Field(None, ge=1, description="Size of the latent z below the heads; null for none.")
    sem_mode: Literal["none", "ppl_ent", "kl_ref"] = Field(
        "none", description="Outputs of the frozen LM head: surprise and entropy of each token; and the KL."
    )


@dataclass(frozen=True, slots=True)
class CriticOutput:
    """What a critic says of each token's state.

    Attributes:
        quantile_values: [batch seq head quantile], float32, aligned to tokens: entry t is the value just before token t
            is sampled; 0 where ``action_mask`` is false.
        raw_crossing_frac: [batch seq], share of neighbouring raw outputs that were out of order before sorting.
        extra: further outputs of special heads, by name.
    """

    quantile_values: Tensor
    raw_crossing_frac: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
