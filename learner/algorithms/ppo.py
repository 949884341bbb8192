"""PPO with a scalar critic."""

from __future__ import annotations

from pydantic import Field, model_validator

from learner.algorithms.actor_critic import ActorCritic, ActorCriticConfig


class PPO(ActorCritic):
    """Proximal policy optimisation (1707.06347): GAE over a scalar critic, clipped ratio, clipped value step.

    ``L_pi = token_mean max(-rho * A, -clip(rho) * A)``, ``L_V = 1/2 token_mean (V - sg R)^2`` (method 2.2). Separate
    ``lam_actor`` and ``lam_critic`` are those of VC-PPO (2503.01491). With more than one head the value is their mean
    and each head regresses to the same target (our choice).
    """

    class Config(ActorCriticConfig):
        """Options of PPO."""

        dual_clip: float | None = Field(
            3.0, gt=1.0, description="Largest ratio that a negative advantage is paid for; null for no such bound."
        )
        value_clip: float | None = Field(
            0.2, gt=0.0, description="Bound of the critic's step from its old value, in reward units; null for none."
        )

        @model_validator(mode="after")
        def _scalar(self) -> PPO.Config:
            if self.critic.num_quantiles != 1:
                raise ValueError(
                    f"the critic of ppo is scalar: critic.num_quantiles must be 1, got {self.critic.num_quantiles} "
                    "(a critic with quantiles: dvpo)"
                )
            return self
