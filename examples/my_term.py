"""A term of the critic's loss in one file outside the project; docs/algorithms.md walks through it.

Run it from this folder (or with it on PYTHONPATH), as one term among others or in the place of all of them:

    algorithm: {preset: dvpo, terms: [quantile_huber, {type: "my_term:EnergyScore", coef: 0.5}]}
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from learner.algorithms.critic.terms.base import CriticTerm, TokenView
from learner.maths.quantiles.quantiles import midpoint_taus
from learner.models.spec import CriticConfig


def energy_score(q: Tensor, y: Tensor) -> Tensor:
    """``mean_ik |q_i - y_k| - 1/2 mean_ij |q_i - q_j|``, [... M] and [... K] -> [...] (Gneiting and Raftery 2007).

    A proper score: its expectation is least where q is the distribution that y is drawn from. As q ascends, the mean
    distance of two of its members is ``sum_i (4 tau_i - 2) q_i / M``, so that no pair has to be formed.
    """
    distance = (q.unsqueeze(-1) - y.unsqueeze(-2)).abs().mean(dim=(-1, -2))
    taus = midpoint_taus(q.shape[-1], q.device, q.dtype)
    return distance - ((2.0 * taus - 1.0) * q).mean(dim=-1)


class EnergyScore(CriticTerm):
    """Scores the whole distribution at once, where quantile regression scores each level by itself."""

    name = "energy_score"  # reported as critic/energy_score and critic/energy_score_weighted

    class Config(CriticTerm.Config):
        """Options: the weight that every term has, and one more."""

        max_atoms: int = Field(64, ge=1, description="Targets with more atoms than this are thinned out, evenly.")

    def misfit(self, critic: CriticConfig) -> str:
        """Told by `dvpo check`, before anything starts."""
        return "needs sorted quantiles; set critic.monotonicity to 'sort'" if critic.monotonicity == "none" else ""

    def __call__(self, view: TokenView) -> Tensor:
        """The loss of each head at each of n tokens, [n head]; q and y are in units of the running scale."""
        step = max(1, view.y.shape[-1] // self.config.max_atoms)
        return energy_score(view.q, view.y[..., ::step])
