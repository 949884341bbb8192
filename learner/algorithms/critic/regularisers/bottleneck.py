"""The variational information bottleneck between the critic's hidden state and its value heads."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from learner.algorithms.critic.regularisers.base import CriticRegulariser, Penalty
from learner.algorithms.records import Estimates
from learner.algorithms.streams import stream_seeds
from learner.batch import TrainBatch
from learner.models.spec import CriticConfig, CriticOutput
from rollout.component import StrictModel


class Bottleneck(CriticRegulariser):
    """``beta_ib * token_mean KL(N(mu, sigma) || N(0, I))`` of the latent (2508.03058; sizes and weights are ours).

    The latent is sampled in training and at its mean before the update (:mod:`learner.models.bottleneck`).
    """

    class Config(StrictModel):
        """Options of the bottleneck."""

        dim: int = Field(128, ge=1, description="Size of the latent z.")
        coef: float = Field(1e-3, ge=0.0, description="beta_ib, weight of the latent's KL to a standard normal.")
        anneal_frac: float = Field(
            0.1, ge=0.0, le=1.0, description="Share of the updates in which that weight rises linearly from 0."
        )

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`CriticRegulariser`."""
        return (
            ""
            if critic.head == "quantile"
            else f"needs critic.head 'quantile': a {critic.head} head does not go on a latent"
        )

    def model_options(self) -> dict[str, Any]:
        """See :class:`CriticRegulariser`."""
        return {"bottleneck_dim": self.config.dim}

    def model_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """Seeds of the latent's noise, fresh in each step and the same wherever a row lands."""
        return {"noise_seeds": stream_seeds(batch.sample_seeds, "bottleneck", step)}

    def penalties(self, output: CriticOutput, estimates: Estimates, progress: float) -> dict[str, Penalty]:
        """See :class:`CriticRegulariser`."""
        if output.bottleneck_kl is None:
            raise ValueError("the bottleneck needs the KL of a latent")
        return {"bottleneck_kl": Penalty(self.weight(progress), None, output.bottleneck_kl)}

    def weight(self, progress: float) -> float:
        """beta_ib at this point of the run."""
        rise = self.config.anneal_frac
        return float(self.config.coef * (min(1.0, progress / rise) if rise > 0.0 else 1.0))
