"""S-GRPO: groups weigh by how much of their spread can be trusted under symmetric flips of the reward."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.without_critic.dr_grpo import DrGRPO
from learner.algorithms.without_critic.groups import group_mean, z_scored_advantages

_EPS = 1e-8


def group_weights(scores: Tensor, group_ids: Tensor, flip_rate: float) -> Tensor:
    """``w = (1 - 2p) * t (1 - t) / (sqrt(q (1 - q) + eps) * sqrt(t (1 - t) + eps))`` of each row's group, [n].

    2508.05928, as in the authors' program. q is the group's share of scores above 0, p the chance that a reward of 0 or
    1 is flipped, and ``t = clip((q - p) / (1 - 2p), 0, 1)`` the share that is right. It is 0 where flips alone explain
    the minority (q <= p or q >= 1 - p) and ``sqrt(t (1 - t) / (q (1 - q))) * (1 - 2p)`` elsewhere: the more balanced a
    group, the closer to 1 - 2p.
    """
    q = group_mean((scores > 0.0).double(), group_ids)
    t = ((q - flip_rate) / (1.0 - 2.0 * flip_rate)).clamp(0.0, 1.0)
    spreads = (q * (1.0 - q) + _EPS).sqrt() * (t * (1.0 - t) + _EPS).sqrt()
    return (1.0 - 2.0 * flip_rate) * t * (1.0 - t) / spreads


class StableGRPO(DrGRPO):
    """Stable GRPO (2508.05928): ``A_i = w_g * (r_i - mean_g) / (std_g + eps)``, w from :func:`group_weights`.

    In an unbalanced group one flipped verdict moves every advantage, so such groups weigh less, and nothing where the
    assumed flips explain all of its minority. As in the authors' program, GRPO's z-score stands in Dr.GRPO's loss (no
    division by length); the deviation is divided by G as everywhere here, not G - 1. Scores are detached.
    """

    reads_verdicts = True

    class Config(DrGRPO.Config):
        """Options of S-GRPO."""

        flip_rate: float = Field(
            ge=0.0, lt=0.5, description="p, the chance that a verdict of 0 or 1 is flipped; 0 weighs groups alike."
        )
        kl_mode: Literal["loss"] = Field(
            "loss", description="With the KL cost in the score it would no longer be a verifier's 0 or 1."
        )

    def group_advantages(self, scores: Tensor, group_ids: Tensor) -> Tensor:
        """Advantage of each trajectory of the global batch, [n]."""
        weights = group_weights(scores, group_ids, self.config.flip_rate)
        advantages: Tensor = weights.to(scores.dtype) * z_scored_advantages(scores, group_ids)
        return torch.where(weights > 0.0, advantages, torch.zeros_like(advantages))
