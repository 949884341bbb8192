"""Squared errors of scalar critics."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from learner.algorithms.critic.terms.base import CriticTerm, TokenView, Weighted
from learner.maths.losses.value import value_loss
from learner.metrics import Mean, Metrics
from learner.models.spec import CriticConfig


class Squared(CriticTerm):
    """``1/2 (V - sg R)^2`` of each head, with a clipped step where asked for (PPO's value loss)."""

    in_units_of_scale = False

    class Config(Weighted):
        """Options of the squared error."""

        coef: float = Field(1.0, gt=0.0, description="Weight of the term in the critic's loss.")
        clip: float | None = Field(
            None, gt=0.0, description="Bound of the critic's step from its old value, in reward units; null for none."
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.needs_old_values = config.clip is not None

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`CriticTerm`."""
        if critic.num_quantiles == 1:
            return ""
        return f"is for a scalar critic, and critic.num_quantiles is {critic.num_quantiles} (use quantile_huber)"

    def __call__(self, view: TokenView) -> Tensor:
        """See :class:`CriticTerm`."""
        old = None if view.old_values is None else view.old_values.squeeze(-1)
        return value_loss(view.values.squeeze(-1), view.targets, old, self.config.clip)


class AsymmetricSquared(Squared):
    """The squared error, times w where V > R (after CQL, 2006.04779; our form).

    The minimiser is the expectile at 1 / (1 + w) of the returns instead of their mean; w = 1 is :class:`Squared` bit
    for bit. Targets and the sign of V - R are detached.
    """

    class Config(Squared.Config):
        """Options of the asymmetric error."""

        weight: float = Field(3.0, gt=0.0, description="w, factor of the squared error where V > R; 1 is PPO's.")

    def __call__(self, view: TokenView) -> Tensor:
        """See :class:`CriticTerm`."""
        weight: float = self.config.weight
        return (1.0 + (weight - 1.0) * self._above(view)) * super().__call__(view)

    def metrics(self, view: TokenView) -> Metrics:
        """Share of the values that are above their targets."""
        above = self._above(view)
        return {"critic/overestimated_frac": Mean(float(above.sum()), float(above.numel()))}

    def _above(self, view: TokenView) -> Tensor:
        values = view.values.detach().squeeze(-1)
        return (values > view.targets).to(values.dtype)
