"""DistRLVR: a quantile critic told several futures, whose tails say which advantages to amplify."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.critic.config import ActorCriticConfig
from learner.algorithms.critic.short_keys import Inside, Option, ShortKey
from learner.algorithms.records import Estimates
from learner.batch import TrainBatch
from learner.maths.collective import Collective
from learner.maths.quantiles.readouts import cvar_blend_weights, read_out
from learner.metrics import Last, Mean, Metrics
from learner.models.spec import CriticConfig, CriticOutput
from rollout.component import ComponentSpec
from rollout.component.mistakes import Conflict

Tails = Literal["both", "upper", "lower"]


class DistRLVR(ActorCritic):
    """DistRLVR ("Beyond Scalar Critics", openreview 3e46ayVUgj): tail-aware advantages over a distributional critic.

    The critic regresses to dual sample replacement targets. An advantage above 0 is weighed by how far the upper tail
    of the state's predicted law lies above its mean, one below 0 by how far the lower tail lies below it, each over its
    mean over all tokens of that sign (:func:`tail_weights`); then all are divided by one number, so that the mean
    absolute advantage stays. Weights are detached.

    The paper is known to us by its abstract and the description of the authors' program: tail-sensitive weights, gated
    and without gradient, at a preserved scale of updates. The formula, the gate and all numbers are our reading. Of its
    critics (categorical, quantile, implicit quantile) this has the second one.
    """

    SHORT_KEYS: ClassVar[Mapping[str, ShortKey]] = {
        "lam_critic": Option("target", {"dual_replacement": "lam", "mixture": "lam", "quantile_wise": "lam"}),
        "draws": Option("target", {"dual_replacement": "draws"}),
        "huber_kappa": Inside({"quantile_huber": "kappa"}),
    }

    class Config(ActorCriticConfig):
        """Options of DistRLVR."""

        critic: CriticConfig = Field(CriticConfig(num_heads=1), description="Shape of the critic's head.")
        target: ComponentSpec = Field(
            ComponentSpec(type="dual_replacement"),
            description="What the critic regresses to, and the advantage's form.",
        )
        tail_coef: float = Field(
            0.5, ge=0.0, description="By how much more, at most, an advantage weighs where its tail is wide."
        )
        tail_share: float = Field(0.1, gt=0.0, lt=0.5, description="Share of the mass that a tail is.")
        tails: Tails = Field("both", description="Which signs of advantages are weighed: 'upper' is those above 0.")

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.critic.num_quantiles < 2:
            raise Conflict("algorithm.critic.num_quantiles: dist_rlvr looks at tails, so it needs at least 2 (got 1)")

    def refine(self, estimates: Estimates, output: CriticOutput, batch: TrainBatch, world: Collective) -> Estimates:
        """Weigh the advantages by the tails of the critic before the update."""
        gaps = torch.zeros_like(estimates.advantages)
        number, share = output.num_quantiles, self.config.tail_share
        lower = cvar_blend_weights(number, 1.0, 0.0, share, share)
        upper = cvar_blend_weights(number, 0.0, 1.0, share, share)
        for place in output.places:
            law = self.ensemble(output.cut(place).quantile_values)
            mean = law.mean(dim=-1)
            up = estimates.advantages[place] > 0.0
            gaps[place] = torch.where(up, read_out(law, upper) - mean, mean - read_out(law, lower))
        mask = batch.action_mask
        columns = world.gather(torch.stack([gaps[mask], estimates.advantages[mask]], dim=-1))
        weights, factor = tail_weights(gaps, estimates.advantages, columns, self.config.tail_coef, self.config.tails)
        weights = torch.where(mask, weights, torch.ones_like(weights))
        metrics: Metrics = {
            "advantage/amplified_frac": Mean(float((weights[mask] > 1.0).sum()), float(mask.sum())),
            "advantage/tail_factor": Last(factor),
        }
        advantages = estimates.advantages * weights * factor
        return replace(estimates, advantages=advantages, metrics=estimates.metrics | metrics)


def tail_weights(gaps: Tensor, advantages: Tensor, everyone: Tensor, coef: float, tails: Tails) -> tuple[Tensor, float]:
    """``w = 1 + coef * clip(gap / mean gap - 1, 0, 1)`` of each token, and the factor that keeps the mean of ``|A|``.

    The mean gap is over all tokens whose advantage has the same sign (0 counts as below). A gap of at most its mean
    leaves a token alone, one of twice the mean or more weighs it ``1 + coef``; so does the sign that ``tails`` leaves
    out, with 1. Our choice.

    Args:
        gaps: of the tail that belongs to the advantage's sign, at least 0, of any shape.
        advantages: of the same shape.
        everyone: [n 2], gaps and advantages of all ranks' tokens.
    """

    def weigh(gap: Tensor, advantage: Tensor) -> Tensor:
        result = torch.ones_like(gap)
        for above in (True, False):
            if tails == ("lower" if above else "upper"):
                continue
            of_all = everyone[(everyone[:, 1] > 0.0) == above, 0].double()
            mean = float(of_all.mean()) if of_all.numel() else 0.0
            if mean > 0.0:
                wider = (gap / mean - 1.0).clamp(0.0, 1.0)
                result = torch.where((advantage > 0.0) == above, 1.0 + coef * wider, result)
        return result

    sizes = everyone[:, 1].double().abs()
    weighed = float((weigh(everyone[:, 0], everyone[:, 1]).double() * sizes).sum())
    return weigh(gaps, advantages), float(sizes.sum()) / weighed if weighed > 0.0 else 1.0
