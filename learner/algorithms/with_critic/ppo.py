"""PPO with a scalar critic."""

from __future__ import annotations

from pydantic import Field, field_validator

from learner.algorithms.actor_critic import ActorCritic, ActorCriticConfig
from learner.models.spec import CriticConfig


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

    class Config(ActorCriticConfig):
        """Options of PPO."""

        critic: ScalarCriticConfig = Field(ScalarCriticConfig(), description="Shape of the critic's head.")

        dual_clip: float | None = Field(
            3.0, gt=1.0, description="Largest ratio that a negative advantage is paid for; null for no such bound."
        )
        value_clip: float | None = Field(
            0.2, gt=0.0, description="Bound of the critic's step from its old value, in reward units; null for none."
        )
