"""Robust Bellman PPO: targets bootstrap from the worst case over a set of value distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.critic.config import ActorCriticConfig
from learner.algorithms.critic.short_keys import Choice, Inside, Option, ShortKey
from learner.models.spec import CriticConfig
from rollout.component import ComponentSpec

SETS = ("min_heads", "contamination", "cvar", "tv", "kl")


class RobustCriticConfig(CriticConfig):
    """Three scalar heads unless said otherwise."""

    num_quantiles: int = Field(1, ge=1, le=4096, description="Quantile levels of each head; 1 is a scalar critic.")


class RobustBellman(ActorCritic):
    """Worst-case PPO, the "Robust Bellman" baseline of 2512.03847, of which only minimum aggregation is public.

    The targets are those of :mod:`learner.algorithms.critic.targets.robust`. Scalar heads have PPO's squared error,
    quantile heads the quantile Huber loss towards the point Y_t. With one head (min_heads), rho = 0 or alpha = 1 it is
    PPO.
    """

    SHORT_KEYS: ClassVar[Mapping[str, ShortKey]] = {
        "uncertainty": Choice("target", {name: f"robust_{name}" for name in SETS}),
        "rho": Option("target", {f"robust_{name}": "rho" for name in ("contamination", "tv", "kl")}),
        "alpha": Option("target", {"robust_cvar": "alpha"}),
        "lam_critic": Option("target", {f"robust_{name}": "lam" for name in SETS}),
        "value_clip": Inside({"squared": "clip"}, default=0.2),
        "huber_kappa": Inside({"point_huber": "kappa"}),
    }

    class Config(ActorCriticConfig):
        """Options of robust Bellman PPO."""

        dual_clip: float | None = Field(
            3.0, gt=1.0, description="Largest ratio paid for a negative advantage; or null."
        )
        critic: RobustCriticConfig = Field(RobustCriticConfig(), description="Shape of the critic's head.")
        target: ComponentSpec = Field(
            ComponentSpec(type="robust_min_heads"),
            description="What the critic regresses to, and the advantage's form.",
        )
        terms: tuple[ComponentSpec, ...] = Field(
            (ComponentSpec(type="squared", clip=0.2),),
            min_length=1,
            description="Summands of the critic's loss, in order; for quantile heads point_huber unless written.",
        )

    @classmethod
    def terms_for(cls, options: Mapping[str, Any]) -> tuple[ComponentSpec, ...]:
        """A squared error of scalar heads, or a regression of quantile heads."""
        critic = options.get("critic")
        is_scalar = not isinstance(critic, Mapping) or critic.get("num_quantiles", 1) == 1
        return super().terms_for(options) if is_scalar else (ComponentSpec(type="point_huber"),)
