"""Ties uncertain tokens of the critic to the meaning that a frozen language model gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.critic.regularisers.base import CriticRegulariser, Penalty
from learner.algorithms.records import Estimates, OldOutputs, Rows
from learner.batch import TrainBatch
from learner.maths.collective import Collective
from learner.maths.quantiles.quantiles import quantile_at
from learner.metrics import Mean, Metrics
from learner.models.spec import CriticOutput
from rollout.component import StrictModel

_SHARE = Field(0.2, gt=0.0, le=1.0, description="k: tokens in the top share of entropy or of surprise.")


@dataclass(frozen=True)
class SelectedTokens(Rows):
    """[batch seq], 1 / (share of tokens selected) on the selected tokens, 0 elsewhere."""

    weights: Tensor


class _OfSelectedTokens(CriticRegulariser):
    """A regulariser of the set S of uncertain tokens.

    S is chosen over the global batch from the critic as it was before the update, once per update (our reading of
    "recomputed each step" in 2508.03058); with several mini-batches a mean over S divides by the mini-batch's tokens
    times the share of the whole batch that S is. Detached: the LM head W, the starting model, the set S.
    """

    sem_mode: str

    def model_options(self) -> dict[str, Any]:
        """See :class:`CriticRegulariser`."""
        return {"sem_mode": self.sem_mode}

    def prepare(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> tuple[Rows | None, Metrics]:
        """Choose S."""
        critic = old.critic
        if critic is None or critic.semantic_entropy is None or critic.semantic_nll is None:
            raise ValueError("the selection needs entropy and surprise of the frozen LM head")
        mask = batch.action_mask
        selected = select_tokens((critic.semantic_entropy, critic.semantic_nll), mask, self.config.share, world)
        population = world.gather(selected[mask].double())
        share = float(population.mean()) if population.numel() else 1.0
        weights = selected.to(batch.rewards) / max(share, 1e-12)
        metrics: Metrics = {"critic/semantic_frac": Mean(float(selected.sum()), float(mask.sum()))}
        return SelectedTokens(weights), metrics

    def model_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """The selected tokens; of a placeholder all that it has."""
        return {"semantic_mask": batch.action_mask if estimates is None else self.weights(estimates) > 0}

    def weights(self, estimates: Estimates) -> Tensor:
        """What :meth:`prepare` carried, [batch seq]."""
        carried = estimates.carried(self, SelectedTokens)
        if carried is None:
            raise ValueError("the semantic regulariser needs the tokens that prepare selected")
        return carried.weights


class Semantic(_OfSelectedTokens):
    """``l_ppl * mean_S nll + l_ent * mean_S ent`` of ``softmax(W h_t)`` with the frozen starting LM head W.

    2508.03058; forms, signs and weights are our choice. Gradients go through h_t into the critic's body.
    """

    sem_mode = "ppl_ent"

    class Config(StrictModel):
        """Options of the semantic regulariser."""

        share: float = _SHARE
        nll_coef: float = Field(0.05, ge=0.0, description="l_ppl, weight of the surprise.")
        entropy_coef: float = Field(0.01, description="l_ent, weight of the entropy; positive lowers it.")
        max_nll: float = Field(10.0, gt=0.0, description="Cap of a token's surprise, in nats, no gradient beyond.")

    def penalties(self, output: CriticOutput, estimates: Estimates, progress: float) -> dict[str, Penalty]:
        """See :class:`CriticRegulariser`."""
        if output.semantic_nll is None or output.semantic_entropy is None:
            raise ValueError("the semantic regulariser needs surprise and entropy of the frozen LM head")
        c, weights = self.config, self.weights(estimates)
        return {
            "semantic_nll": Penalty(c.nll_coef, weights, output.semantic_nll.clamp(max=c.max_nll)),
            "semantic_entropy": Penalty(c.entropy_coef, weights, output.semantic_entropy),
        }


class SemanticKL(_OfSelectedTokens):
    """``l_ppl * mean_S KL(p_ref || p_t)``: towards the starting model's own prediction (2508.03058; our reading)."""

    sem_mode = "kl_ref"

    class Config(StrictModel):
        """Options of the KL form."""

        share: float = _SHARE
        coef: float = Field(0.05, ge=0.0, description="Weight of the KL from the starting model.")

    def penalties(self, output: CriticOutput, estimates: Estimates, progress: float) -> dict[str, Penalty]:
        """See :class:`CriticRegulariser`."""
        if output.semantic_kl is None:
            raise ValueError("semantic_kl needs the KL to the starting model")
        return {"semantic_kl": Penalty(self.config.coef, self.weights(estimates), output.semantic_kl)}


def select_tokens(columns: tuple[Tensor, ...], mask: Tensor, share: float, world: Collective) -> Tensor:
    """S: tokens that reach the ``1 - share`` quantile of any column over all ranks' action tokens, [batch seq] bool.

    Method 4 (2508.03058; that uncertain tokens are chosen is from the paper, the rule is our choice). The quantile is
    linear between midpoint levels; detached. Columns are [batch seq] and may hold anything outside the mask.
    """
    chosen = torch.zeros_like(mask)
    for column in columns:
        population = world.gather(column.detach()[mask])
        if population.numel():
            chosen |= mask & (column.detach() >= quantile_at(population.sort().values, 1.0 - share))
    return chosen
