"""AsyPPO: critics that learn from different responses, and a policy that asks where they agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.base import without_effect
from learner.algorithms.critic.terms.base import HeadMask
from learner.algorithms.records import Denominators, Estimates, Rows
from learner.algorithms.with_critic.ppo import PPO, ScalarCriticConfig
from learner.batch import TrainBatch
from learner.maths.collective import Collective, apply_globally
from learner.metrics import Mean
from learner.models.spec import CriticOutput
from rollout.component.mistakes import OutOfRange


@dataclass(frozen=True)
class EntropyMask(Rows):
    """Tokens whose entropy is part of the bonus, [batch seq]: 1 or 0."""

    kept: Tensor


def shards(group_ids: Tensor, sample_seeds: Tensor, num_shards: int) -> Tensor:
    """Which critic learns from each trajectory of the global batch, [n] int64: a prompt's go round, in seeds' order.

    Another prompt begins with another critic, so that with one sample of each the prompts go round.
    """
    order = sample_seeds.argsort(stable=True)
    order = order[group_ids[order].argsort(stable=True)]
    _, index, sizes = torch.unique(group_ids, return_inverse=True, return_counts=True)
    first = sizes.cumsum(0) - sizes
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    shard: Tensor = (place - first[index] + index) % num_shards
    return shard


def below_share(values: Tensor, population: Tensor, share: float) -> Tensor:
    """Whether each value is among the lowest ``share`` of a population [n]; of equal ones at the edge none is."""
    number = int(share * population.numel())
    if number == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if number == population.numel():
        return torch.ones_like(values, dtype=torch.bool)
    edge: Tensor = population.kthvalue(number + 1).values
    return values < edge


class AsymmetricPPO(PPO):
    """Asymmetric PPO (2510.01656): an ensemble of critics on disjoint responses, whose differences steer the policy.

    The value is the critics' mean. Each is trained on its own part of every prompt's responses (:func:`shards`). Tokens
    in whose state the critics agree most, the lowest share of the standard deviation over critics, are no part of the
    policy's surrogate: there is little left to learn. Those where they differ most are no part of the entropy bonus.

    The paper's critics are small models of their own; here they are heads of one model, whose weight is divided by the
    share that each learns from (our choices). Both shares are those of a public re-implementation: the paper's numbers
    are not known to us. Both sets are taken over all ranks' tokens, after normalisation, and detached.
    """

    class Config(PPO.Config):
        """Options of AsyPPO."""

        critic: ScalarCriticConfig = Field(ScalarCriticConfig(num_heads=2), description="Shape of the critic's heads.")
        agreement_share: float = Field(
            0.1, ge=0.0, lt=1.0, description="Share of the tokens, those where critics agree most, without a surrogate."
        )
        divergence_share: float = Field(
            0.2, ge=0.0, lt=1.0, description="Share of the tokens, those where critics differ most, without a bonus."
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.critic.num_heads < 2:
            raise OutOfRange("algorithm.critic.num_heads: asyppo compares critics, so it needs at least 2 (got 1)")
        without_effect(config, ("head_bootstrap_p",), "as each head has its own responses")
        if not self.needs_entropy:
            without_effect(config, ("divergence_share",), "without an entropy bonus (entropy_coef)")
        self.needs_old_heads = True

    def refine(self, estimates: Estimates, output: CriticOutput, batch: TrainBatch, world: Collective) -> Estimates:
        """Mask advantages and entropies, and deal trajectories out to the heads."""
        mask, heads = batch.action_mask, self.config.critic.num_heads
        spread = output.quantile_values.squeeze(-1).double().std(dim=-1, correction=0)
        population = world.gather(spread[mask])
        agreed = mask & below_share(spread, population, self.config.agreement_share)
        apart = mask & below_share(-spread, -population, self.config.divergence_share)

        def deal(group_ids: Tensor, sample_seeds: Tensor) -> Tensor:
            return shards(group_ids, sample_seeds, heads)

        head = apply_globally(deal, world, batch.group_ids, batch.sample_seeds)
        factors = heads * torch.nn.functional.one_hot(head, heads).to(estimates.advantages)
        count = float(mask.sum())
        metrics = {"advantage/agreed_frac": Mean(float(agreed.sum()), count)}
        extra = {**estimates.extra, HeadMask: HeadMask(factors.unsqueeze(1))}
        if self.needs_entropy:
            extra[EntropyMask] = EntropyMask((~apart).to(estimates.advantages))
            metrics["policy/entropy_filtered_frac"] = Mean(float(apart.sum()), count)
        advantages = torch.where(agreed, torch.zeros_like(estimates.advantages), estimates.advantages)
        return replace(estimates, advantages=advantages, extra=extra, metrics=estimates.metrics | metrics)

    def combine(self, parts: dict[str, Tensor], mask: Tensor, estimates: Estimates, counts: Denominators) -> Tensor:
        """See :class:`learner.algorithms.clipped_policy.ClippedPolicy`; the bonus without the tokens left out of it."""
        kept = estimates.carried(EntropyMask, EntropyMask)
        if kept is not None and "entropy" in parts:
            parts = {**parts, "entropy": parts["entropy"] * kept.kept}
        return super().combine(parts, mask, estimates, counts)
