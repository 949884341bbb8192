"""Decoupled VPO: a value model that is trained first, then frozen, and whose values are the advantages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.critic.config import ActorCriticConfig
from learner.algorithms.critic.short_keys import Inside, Option, ShortKey
from learner.algorithms.with_critic.ppo import ScalarCriticConfig
from rollout.component import ComponentSpec


class DecoupledVPO(ActorCritic):
    """Decoupled value policy optimisation (2502.16944): pre-train a global value model, freeze it, use it as advantage.

    For the first ``pretrain_frac`` of the updates only the critic learns: ``(sg Y_t - V_t)^2 / 2`` on lambda-returns of
    the score (intermediate rewards 0; ``lam_critic`` 0 is the paper's TD(0)), and ``(r - V_end)^2 / 2`` for the value
    after the last token. From then on it is frozen and ``A_t = Q(s_t, a_t)``, whitened, in PPO-clip.

    What differs from the paper: the value model learns online, from the policy's own first samples, not offline from a
    data set (the policy does not change meanwhile); and it is not conditioned on other sample trajectories of the
    policy but on the text so far only, since a critic here reads one row. Targets and advantages are detached.
    """

    SHORT_KEYS: ClassVar[Mapping[str, ShortKey]] = {
        "lam_critic": Option("target", {"after_token": "lam"}),
        "value_clip": Inside({"squared": "clip"}),
    }

    class Config(ActorCriticConfig):
        """Options of decoupled VPO."""

        critic: ScalarCriticConfig = Field(ScalarCriticConfig(), description="Shape of the critic's head.")
        target: ComponentSpec = Field(
            ComponentSpec(type="after_token"), description="What the critic regresses to, and the advantage's form."
        )
        terms: tuple[ComponentSpec, ...] = Field(
            (ComponentSpec(type="squared"), ComponentSpec(type="end_value")),
            min_length=1,
            description="Summands of the critic's loss, in order; each has a 'type' and a 'coef'.",
        )
        pretrain_frac: float = Field(
            0.2, gt=0.0, lt=1.0, description="Share of the updates in which only the critic learns; then it is frozen."
        )

    def critic_only_updates(self, num_updates: int) -> int:
        """At least one update, and at least one is left for the policy where there are two."""
        pretrain_frac: float = self.config.pretrain_frac
        return min(num_updates - 1, math.ceil(pretrain_frac * num_updates))

    def critic_frozen_from(self, num_updates: int) -> int | None:
        """As soon as the policy learns."""
        return self.critic_only_updates(num_updates)
