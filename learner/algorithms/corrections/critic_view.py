"""What the old critic predicted of each trajectory's reward. Shared by the corrections that ask it."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.algorithms.records import OldOutputs
from learner.batch import TrainBatch
from learner.models.spec import CriticConfig


def predicted_reward(old: OldOutputs, batch: TrainBatch) -> tuple[Tensor, Tensor]:
    """The critic's law of the reward in the state before the last action token, the one that earns it.

    Returns:
        [batch M] ascending quantiles of the ensemble (mean over heads of sorted heads), detached, and [batch] bool,
        whether the row has an action token at all (its quantiles are those of token 0 otherwise).
    """
    if old.critic is None:
        raise ValueError("the correction needs the old critic's output")
    mask = batch.action_mask
    last = torch.where(mask, torch.arange(mask.shape[1], device=mask.device), 0).amax(dim=1)
    heads = old.critic.quantiles_at(last).detach()
    return heads.sort(dim=-1).values.mean(dim=-2), mask.any(dim=1)


def too_few_quantiles(critic: CriticConfig, share: float) -> str:
    """Why the critic cannot tell its quantile at level ``share``, or an empty string."""
    if critic.num_quantiles < 2:
        return "needs a critic with quantiles, and critic.num_quantiles is 1 (use dvpo or another quantile critic)"
    if share * critic.num_quantiles < 0.5 - 1e-9:
        need = int(-(-0.5 // share))
        return f"asks for the quantile at {share:g}, for which critic.num_quantiles must be at least {need}"
    return ""
