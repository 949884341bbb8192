"""PPO with a scalar critic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, field_validator

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.critic.config import ActorCriticConfig
from learner.algorithms.critic.short_keys import Inside, Option, ShortKey
from learner.models.spec import CriticConfig
from rollout.component import ComponentSpec


class ScalarCriticConfig(CriticConfig):
    """A critic of one number; one head unless said otherwise."""

    num_heads: int = Field(1, ge=1, le=64, description="Independent heads of the value ensemble.")
    num_quantiles: int = Field(1, ge=1, description="1: the critic is scalar.")

    @field_validator("num_quantiles")
    @classmethod
    def _scalar(cls, value: int) -> int:
        if value != 1:
            raise ValueError("the critic of ppo is scalar, so this must be 1 (a critic with quantiles: dvpo)")
        return value


class PPO(ActorCritic):
    """Proximal policy optimisation (1707.06347): GAE over a scalar critic, clipped ratio, clipped value step.

    ``L_pi = token_mean max(-rho * A, -clip(rho) * A)``, ``L_V = 1/2 token_mean (V - sg R)^2``. Separate
    ``lam_actor`` and ``lam_critic`` are those of VC-PPO (2503.01491). With more than one head the value is their mean
    and each head regresses to the same target (our choice).
    """

    SHORT_KEYS: ClassVar[Mapping[str, ShortKey]] = {
        "lam_critic": Option("target", {"lambda_return": "lam"}),
        "value_clip": Inside({"squared": "clip"}),
    }

    class Config(ActorCriticConfig):
        """Options of PPO."""

        critic: ScalarCriticConfig = Field(ScalarCriticConfig(), description="Shape of the critic's head.")
        dual_clip: float | None = Field(
            3.0, gt=1.0, description="Largest ratio that a negative advantage is paid for; null for no such bound."
        )
        terms: tuple[ComponentSpec, ...] = Field(
            (ComponentSpec(type="squared", clip=0.2),),
            min_length=1,
            description="Summands of the critic's loss, in order; each has a 'type' and a 'coef'.",
        )
