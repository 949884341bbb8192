"""Options of a method with a critic."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from learner.algorithms.base import specs_of
from learner.algorithms.clipped_policy import ClippedPolicyConfig
from learner.masking import WhitenMode
from learner.models.spec import CriticConfig
from rollout.component import ComponentSpec


class ActorCriticConfig(ClippedPolicyConfig):
    """Options of a method with a critic. Options of a piece are in the piece, so none can be set without effect."""

    gamma: float = Field(1.0, ge=0.0, le=1.0, description="Discount per sampled token.")
    lam_actor: float = Field(0.95, ge=0.0, le=1.0, description="GAE lambda of the advantages.")
    lam_actor_alpha: float | None = Field(
        None,
        gt=0.0,
        description="Length-adaptive lambda 1 - 1 / (this * sampled tokens), at least 0, for lam_actor; or null.",
    )
    whiten: WhitenMode = Field(
        "std", description="Normalisation of advantages over all action tokens of the batch: none, std, scale or mad."
    )
    bootstrap_truncated: bool = Field(
        False, description="Take the critic's value, not 0, as the future of a response cut at the length limit."
    )
    critic: CriticConfig = Field(CriticConfig(), description="Shape of the critic's head.")
    readout: ComponentSpec = Field(
        ComponentSpec(type="mean"), description="The scalar value of a distribution that advantages use."
    )
    target: ComponentSpec = Field(
        ComponentSpec(type="lambda_return"), description="What the critic regresses to, and the advantage's form."
    )
    terms: tuple[ComponentSpec, ...] = Field(
        (ComponentSpec(type="quantile_huber"),),
        min_length=1,
        description="Summands of the critic's loss, in order; each has a 'type' and a 'coef'.",
    )
    regularisers: tuple[ComponentSpec, ...] = Field(
        (), description="What is added to filter noise out of the critic's states; each has a 'type'."
    )
    head_bootstrap_p: float | None = Field(
        None, gt=0.0, lt=1.0, description="Chance that a head learns from a trajectory (keeps heads diverse); or null."
    )
    scale_decay: float = Field(0.99, ge=0.0, lt=1.0, description="Decay of the running scale s, per update.")
    scale_floor: float = Field(1e-3, gt=0.0, description="Least running scale s, in reward units.")

    @field_validator("readout", "target", mode="before")
    @classmethod
    def _name_is_a_type(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @field_validator("terms", "regularisers", mode="before")
    @classmethod
    def _names_are_piece_types(cls, value: Any) -> Any:
        return specs_of(value)
