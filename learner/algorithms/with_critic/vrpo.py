"""VRPO: a critic with an information bottleneck and a tie to the meaning of uncertain tokens; alone or under DVPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from learner.algorithms.critic.short_keys import Inside, OneOf, ShortKey
from learner.algorithms.with_critic.dvpo import DVPO, DVPOConfig
from learner.algorithms.with_critic.ppo import PPO
from rollout.component import ComponentSpec

FILTER_KEYS: dict[str, ShortKey] = {
    "ib": OneOf({True: "bottleneck", False: None}),
    "ib_dim": Inside({"bottleneck": "dim"}, "regularisers"),
    "ib_coef": Inside({"bottleneck": "coef"}, "regularisers"),
    "ib_anneal_frac": Inside({"bottleneck": "anneal_frac"}, "regularisers"),
    "sem_mode": OneOf({"ppl_ent": "semantic", "kl_ref": "semantic_kl", "none": None}),
    "sem_share": Inside({"semantic": "share", "semantic_kl": "share"}, "regularisers"),
    "ppl_coef": Inside({"semantic": "nll_coef", "semantic_kl": "coef"}, "regularisers"),
    "ent_coef": Inside({"semantic": "entropy_coef"}, "regularisers"),
    "max_nll": Inside({"semantic": "max_nll"}, "regularisers"),
}
FILTERS = (ComponentSpec(type="bottleneck"), ComponentSpec(type="semantic"))
"""``L_critic = L_value + beta_ib * L_ib + L_sem`` (2508.03058; the structure is from the paper, forms are ours)."""


class VRPO(PPO):
    """VRPO (2508.03058): PPO whose scalar critic filters noise by :data:`FILTERS`; without them it is PPO."""

    SHORT_KEYS: ClassVar[Mapping[str, ShortKey]] = {**PPO.SHORT_KEYS, **FILTER_KEYS}

    class Config(PPO.Config):
        """Options of VRPO."""

        regularisers: tuple[ComponentSpec, ...] = Field(
            FILTERS, description="What is added to filter noise out of the critic's states; each has a 'type'."
        )


class VRPODVPO(DVPO):
    """VRPO and DVPO together (our combination): quantile heads on the latent, ``Eq 11 + beta_ib * L_ib + L_sem``."""

    SHORT_KEYS: ClassVar[Mapping[str, ShortKey]] = {**DVPO.SHORT_KEYS, **FILTER_KEYS}

    class Config(DVPOConfig):
        """Options of the combination."""

        regularisers: tuple[ComponentSpec, ...] = Field(
            FILTERS, description="What is added to filter noise out of the critic's states; each has a 'type'."
        )
