"""DFPO: DVPO whose value distribution is learned as a flow instead of by quantile regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from learner.algorithms.critic.short_keys import Inside, Nothing, ShortKey
from learner.algorithms.with_critic.dvpo import DVPO, READOUT_KEYS, TAIL_KEYS, TARGET_KEYS, DVPOConfig
from learner.models.spec import CriticConfig
from rollout.component import ComponentSpec

_WHY = "in dfpo, which has no quantile regression"
FLOW_KEYS: dict[str, ShortKey] = {
    "geo_coef": Inside({"flow": "straightness"}),
    "anchor_coef": Inside({"flow": "anchor"}),
    "risk_coef": Nothing(0.0, _WHY),
    "risk_eta": Nothing(1.0, _WHY),
    "risk_direction": Nothing("lower", _WHY),
    "huber_kappa": Nothing(0.05, _WHY),
    "value_clip": Nothing(None, _WHY),
}


class FlowCriticConfig(CriticConfig):
    """A critic with a flow as its head, unless said otherwise."""

    head: Literal["flow"] = Field("flow", description="'flow': the head that this method trains.")


class DFPO(DVPO):
    """Distributional value flow PO (2602.05890) on DVPO's targets and advantages.

    DVPO with the term :class:`~learner.algorithms.critic.terms.flow.FlowMatching` in the place of quantile regression,
    and of the tail terms CVaR (Eq 5), which works against the flow's contraction, and shape (Eq 8).
    """

    SHORT_KEYS: ClassVar[Mapping[str, ShortKey]] = TARGET_KEYS | READOUT_KEYS | TAIL_KEYS | FLOW_KEYS

    class Config(DVPOConfig):
        """Options of DFPO; losses are in units of the running scale s."""

        critic: FlowCriticConfig = Field(FlowCriticConfig(), description="Shape of the critic's head.")
        terms: tuple[ComponentSpec, ...] = Field(
            tuple(ComponentSpec(type=name) for name in ("flow", "lower_cvar", "tail_shape")),
            min_length=1,
            description="Summands of the critic's loss, in order; each has a 'type' and a 'coef'.",
        )
