"""What a critic is asked for and what it answers with: its shape and its output. Names are written here only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rollout.component import StrictModel

END_VALUES = "end_values"
"""The one output that has an entry for each row instead of each token."""
Place = tuple[slice, slice]
"""Rows and columns of a micro-batch in [batch seq]."""


class CriticConfig(StrictModel):
    """Shape of the critic's head. A scalar critic is one head with one quantile."""

    num_heads: int = Field(3, ge=1, le=64, description="Independent heads of the value ensemble.")
    num_quantiles: int = Field(200, ge=1, le=4096, description="Quantile levels of each head; 1 is a scalar critic.")
    monotonicity: Literal["sort", "cumsum", "none"] = Field(
        "sort", description="How each head's quantiles are kept in order."
    )
    head: Literal["quantile", "flow", "categorical"] = Field(
        "quantile",
        description="'quantile': linear in the hidden state; 'flow': one step of a learned flow (DFPO); 'categorical': "
        "the mean of a law over bins.",
    )
    flow_hidden: int | None = Field(
        None, ge=1, description="Hidden units of the flow's velocity network; null: 64. With head 'flow' only."
    )
    num_bins: int | None = Field(
        None, ge=2, le=4096, description="Bins of a categorical head; null: 51. With head 'categorical' only."
    )
    value_low: float | None = Field(
        None, description="Centre of the lowest bin, in reward units; null: 0. With head 'categorical' only."
    )
    value_high: float | None = Field(
        None, description="Centre of the highest bin, in reward units; null: 1. With head 'categorical' only."
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
        self._bins_fit()
        return self

    def _bins_fit(self) -> None:
        if self.head != "categorical":
            for name in ("num_bins", "value_low", "value_high"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} has no effect without head 'categorical'; leave it out")
            return
        low, high, _ = self.bins
        if low >= high:
            raise ValueError(f"value_low must be below value_high, got {low:g} and {high:g}")
        if self.num_quantiles != 1:
            raise ValueError(
                f"head 'categorical' gives one value, so num_quantiles must be 1, got {self.num_quantiles}"
            )
        for name in ("monotonicity", "prior_mean", "prior_scale"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect with head 'categorical'; leave it out")

    @property
    def bins(self) -> tuple[float, float, int]:
        """Lowest and highest centre and number of a categorical head's bins."""
        low = 0.0 if self.value_low is None else self.value_low
        high = 1.0 if self.value_high is None else self.value_high
        return low, high, 51 if self.num_bins is None else self.num_bins


class VariationalCriticConfig(CriticConfig):
    """What the critic's model needs to know beside its heads; no part of a user's options.

    The algorithm derives it from its regularisers, so that no other method has an option that it would ignore.
    """

    bottleneck_dim: int | None = Field(None, ge=1, description="Size of the latent z below the heads; null for none.")
    perturbation: float | None = Field(
        None, gt=0.0, description="Size of the noise on states whose latent is compared with theirs; null for none."
    )
    sem_mode: Literal["none", "ppl_ent", "kl_ref"] = Field(
        "none", description="Outputs of the frozen LM head: surprise and entropy of each token; and the KL."
    )


@dataclass(frozen=True, slots=True)
class CriticOutput:
    """What a critic says of each token's state; the names are those of the outputs of its model.

    Everything is aligned to tokens: entry t is about the state just before token t is sampled, and 0 where
    ``action_mask`` is false. What a critic's kind does not give, or was not asked for, is None.

    Attributes:
        quantile_values: [batch seq head quantile], float32; or, where the model was asked for it, packed to
            [n head quantile], one row for each sampled token.
        raw_crossing_frac: [batch seq], share of neighbouring raw outputs that were out of order before sorting.
        end_values: [batch head quantile], the value after each row's last token.
        bottleneck_kl: [batch seq], KL of the latent to a standard normal, in nats.
        perturbed_kl: [batch seq], KL of the latent to that of the same state with noise, in nats; where asked for.
        semantic_nll: [batch seq], surprise of the token under the frozen LM head, in nats.
        semantic_entropy: [batch seq], entropy of the frozen LM head's next-token distribution, in nats.
        semantic_kl: [batch seq], KL of the starting model's next-token distribution to it, in nats.
        flow_velocity: [batch seq head quantile], the flow head's velocity on the way to the targets.
        flow_velocity_other: the same at another time of the flow.
        bin_logits: [batch seq head bin], a categorical head's logits; in training only.
        head_disagreement: [batch seq], where ``quantile_values`` is the mean of several heads: how far they were apart,
            the standard deviation over heads, averaged over quantiles.
    """

    quantile_values: Tensor
    raw_crossing_frac: Tensor
    end_values: Tensor | None = None
    bottleneck_kl: Tensor | None = None
    perturbed_kl: Tensor | None = None
    semantic_nll: Tensor | None = None
    semantic_entropy: Tensor | None = None
    semantic_kl: Tensor | None = None
    flow_velocity: Tensor | None = None
    flow_velocity_other: Tensor | None = None
    bin_logits: Tensor | None = None
    head_disagreement: Tensor | None = None

    @classmethod
    def of(cls, outputs: Mapping[str, Tensor]) -> CriticOutput:
        """The record of what a critic's model returned.

        Raises:
            TypeError: the model returned a name that this record does not have.
        """
        return cls(**outputs)

    def optional(self) -> dict[str, Tensor]:
        """What was given beside the quantiles, by name."""
        names = [field.name for field in fields(self)][2:]
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def num_quantiles(self) -> int:
        """M."""
        return self.quantile_values.shape[-1]

    @property
    def num_heads(self) -> int:
        """H; 1 where ``quantile_values`` is the mean of the heads."""
        return self.quantile_values.shape[-2]

    @property
    def places(self) -> list[Place]:
        """Rows and columns of the parts that it is made of; here all of it is one."""
        return [(slice(0, self.raw_crossing_frac.shape[0]), slice(0, self.raw_crossing_frac.shape[1]))]

    def cut(self, place: Place) -> CriticOutput:
        """The rows and columns of one part."""
        return CriticOutput(self.quantile_values[place], **self._columns(place))

    def quantiles_at(self, columns: Tensor) -> Tensor:
        """[batch head quantile] of each row in one column, [batch] int64."""
        return self.quantile_values[torch.arange(len(columns), device=columns.device), columns]

    def _columns(self, place: Place) -> dict[str, Tensor]:
        """Everything but the quantiles, of one part."""
        found = {"raw_crossing_frac": self.raw_crossing_frac, **self.optional()}
        return {name: value[place[0] if name == END_VALUES else place] for name, value in found.items()}
