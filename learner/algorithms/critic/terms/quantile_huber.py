"""Quantile Huber regression: what draws the critic's distribution to its targets."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.critic.terms.base import Regression, TokenView, Weighted
from learner.maths.losses import tail
from learner.maths.quantiles.quantiles import midpoint_taus
from learner.models.spec import CriticConfig


class QuantileHuber(Regression):
    """Eq 3 of 2512.03847: ``mean_i mean_j |tau_i - 1{Y_j < q_i}| * H(Y_j - q_i) / kappa`` of each head."""

    name = "quantile_huber"

    class Config(Weighted):
        """Options of the regression."""

        coef: float = Field(1.0, gt=0.0, description="Weight of the term in the critic's loss.")
        kappa: float = Field(0.05, ge=0.0, description="Huber threshold in units of s; 0 is the pinball loss.")
        clip: float | None = Field(
            None, gt=0.0, description="Bound of the critic's step from its old value, in reward units; null for none."
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.kappa, self.clip = config.kappa, config.clip
        self.needs_old_values = config.clip is not None

    def level_weights(self, taus: Tensor) -> Tensor:
        """All levels weigh the same."""
        return torch.ones_like(taus)

    def __call__(self, view: TokenView) -> Tensor:
        """See :class:`CriticTerm`."""
        return view.regression(self)

    def compile_into(self, form: dict[str, Any]) -> bool:
        """See :class:`CriticTerm`."""
        form["coef"][self.name] = self.config.coef
        return self.clip is None and form.setdefault("kappa", self.kappa) == self.kappa


class RiskHuber(QuantileHuber):
    """Eq 4: the same with ``w_i ~ exp(-eta * tau_i)``, mean 1. It moves no minimiser, only the gradient's weight."""

    name = "risk_huber"
    weighs_alike = False

    class Config(QuantileHuber.Config):
        """Options of the risk-weighted regression."""

        coef: float = Field(0.1, gt=0.0, description="Weight of the term in the critic's loss.")
        eta: float = Field(1.0, description="Weights ~ exp(-eta * tau); 0 weighs all levels alike.")
        direction: tail.Side = Field("lower", description="The quantiles that weigh more.")

    def level_weights(self, taus: Tensor) -> Tensor:
        """See :func:`learner.maths.losses.tail.risk_weights`."""
        return tail.risk_weights(taus, self.config.eta, self.config.direction)

    def compile_into(self, form: dict[str, Any]) -> bool:
        """See :class:`CriticTerm`."""
        form |= {"risk_eta": self.config.eta, "risk_direction": self.config.direction}
        return super().compile_into(form)


class PointHuber(QuantileHuber):
    """Quantile Huber regression of quantile heads towards one point, of all heads and levels in one mean."""

    name = ""

    class Config(Weighted):
        """Options of the regression towards a point."""

        coef: float = Field(1.0, gt=0.0, description="Weight of the term in the critic's loss.")
        kappa: float = Field(0.05, ge=0.0, description="Huber threshold in units of s; 0 is the pinball loss.")

    def __init__(self, config: Any) -> None:
        super(QuantileHuber, self).__init__(config)
        self.kappa, self.clip = config.kappa, None

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`CriticTerm`."""
        return "is for quantile heads, and critic.num_quantiles is 1 (use squared)" if critic.num_quantiles == 1 else ""

    def __call__(self, view: TokenView) -> Tensor:
        """See :class:`CriticTerm`; [n]."""
        taus = midpoint_taus(view.q.shape[-1], view.q.device, view.q.dtype)
        return view.per_level(self.kappa, None, taus).mean(dim=(-1, -2))

    def compile_into(self, form: dict[str, Any]) -> bool:
        """See :class:`CriticTerm`."""
        return False
