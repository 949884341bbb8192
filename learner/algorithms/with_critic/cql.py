"""Conservative critics after CQL: over-estimates cost more, and responses behind the wrong prompt are valued less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from learner.algorithms.critic.short_keys import Coef, Inside, Option, ShortKey
from learner.algorithms.with_critic.ppo import PPO
from rollout.component import ComponentSpec


class CQL(PPO):
    """State-value analogues of conservative Q-learning (2006.04779), inspired by it; both forms are our choice.

    PPO with the terms :class:`~learner.algorithms.critic.terms.squared.AsymmetricSquared` (``asym_weight``) and
    :class:`~learner.algorithms.critic.terms.contrast.Contrast` (``contrast_coef``). A weight of 1 without a contrast is
    PPO bit for bit.
    """

    SHORT_KEYS: ClassVar[Mapping[str, ShortKey]] = {
        "lam_critic": Option("target", {"lambda_return": "lam"}),
        "value_clip": Inside({"asymmetric_squared": "clip"}),
        "asym_weight": Inside({"asymmetric_squared": "weight"}),
        "contrast_coef": Coef("contrast"),
        "min_value": Inside({"contrast": "min_value"}),
        "max_value": Inside({"contrast": "max_value"}),
    }

    class Config(PPO.Config):
        """Options of the CQL analogues."""

        terms: tuple[ComponentSpec, ...] = Field(
            (ComponentSpec(type="asymmetric_squared", clip=0.2), ComponentSpec(type="contrast")),
            min_length=1,
            description="Summands of the critic's loss, in order; each has a 'type' and a 'coef'.",
        )
