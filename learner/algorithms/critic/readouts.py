"""Read-outs: which scalar value of a state a method takes from the critic's quantile function for its advantages."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from pydantic import Field, model_validator
from torch import Tensor

from learner.maths.losses.tail import check_tail_share
from learner.maths.quantiles.quantiles import quantile_mean
from learner.maths.quantiles.readouts import cvar_blend_weights, read_out, spectral_weights, trimmed_weights
from learner.models.spec import CriticConfig
from rollout.component import Component, StrictModel

READOUTS: dict[str, str] = {
    "mean": "learner.algorithms.critic.readouts:MeanReadOut",
    "trimmed": "learner.algorithms.critic.readouts:TrimmedReadOut",
    "spectral": "learner.algorithms.critic.readouts:SpectralReadOut",
    "cvar_blend": "learner.algorithms.critic.readouts:CVaRBlendReadOut",
}
"""Type name -> ``module:Class``."""


class ReadOut(Component):
    """A linear functional of quantile functions, [... M] -> [...].

    Any such functional keeps the identity F1: scalar GAE of the read-out is the read-out of quantile-wise GAE.
    """

    def misfit(self, critic: CriticConfig) -> str:
        """Why it cannot work with this critic, as the end of a sentence that starts with its name; empty if it can."""
        return ""

    @abstractmethod
    def __call__(self, quantile_values: Tensor) -> Tensor:
        """The scalar value of quantile functions, [... M] -> [...]."""


class MeanReadOut(ReadOut):
    """The mean of the distribution: with it the advantages are PPO's for V = mean quantile."""

    def __call__(self, quantile_values: Tensor) -> Tensor:
        """See :class:`ReadOut`."""
        return quantile_mean(quantile_values)


class _Weighted(ReadOut):
    """A read-out by fixed weights, [M] with sum 1."""

    @abstractmethod
    def weights(self, num_quantiles: int) -> Tensor:
        """[M] float64."""

    def __call__(self, quantile_values: Tensor) -> Tensor:
        """See :class:`ReadOut`."""
        return read_out(quantile_values, self.weights(quantile_values.shape[-1]))

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`ReadOut`."""
        return "weighs quantiles, and critic.num_quantiles is 1" if critic.num_quantiles == 1 else ""


class TrimmedReadOut(_Weighted):
    """Mean without the lowest and the highest share of the mass (our choice)."""

    class Config(StrictModel):
        """Options of the trimmed mean."""

        low: float = Field(0.1, ge=0.0, lt=1.0, description="Share of the mass dropped below.")
        high: float = Field(0.1, ge=0.0, lt=1.0, description="Share of the mass dropped above.")

        @model_validator(mode="after")
        def _something_is_left(self) -> TrimmedReadOut.Config:
            if self.low + self.high >= 1.0:
                raise ValueError(f"low + high must be below 1, got {self.low} + {self.high}")
            return self

    def weights(self, num_quantiles: int) -> Tensor:
        """See :func:`learner.maths.quantiles.readouts.trimmed_weights`."""
        return trimmed_weights(num_quantiles, self.config.low, self.config.high)


class SpectralReadOut(_Weighted):
    """Exponential spectrum: weights ~ exp(-eta * tau) (our choice)."""

    class Config(StrictModel):
        """Options of the spectral read-out."""

        eta: float = Field(1.0, description="Positive is averse to risk, negative seeks it; 0 is the mean.")

    def weights(self, num_quantiles: int) -> Tensor:
        """See :func:`learner.maths.quantiles.readouts.spectral_weights`."""
        return spectral_weights(num_quantiles, self.config.eta)


class CVaRBlendReadOut(_Weighted):
    """The mean blended with the CVaR of both tails (our choice)."""

    class Config(StrictModel):
        """Options of the blend."""

        lower: float = Field(0.1, ge=0.0, le=1.0, description="Weight of the lower CVaR.")
        upper: float = Field(0.1, ge=0.0, le=1.0, description="Weight of the upper CVaR.")
        lower_share: float = Field(0.1, gt=0.0, lt=0.5, description="Share of the lower tail.")
        upper_share: float = Field(0.1, gt=0.0, lt=0.5, description="Share of the upper tail.")

        @model_validator(mode="after")
        def _weights_fit(self) -> CVaRBlendReadOut.Config:
            if self.lower + self.upper > 1.0:
                raise ValueError(f"lower + upper must not exceed 1, got {self.lower} + {self.upper}")
            return self

    def weights(self, num_quantiles: int) -> Tensor:
        """See :func:`learner.maths.quantiles.readouts.cvar_blend_weights`."""
        c: Any = self.config
        return cvar_blend_weights(num_quantiles, c.lower, c.upper, c.lower_share, c.upper_share)

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`ReadOut`."""
        try:
            check_tail_share(critic.num_quantiles, self.config.lower_share, 1, "lower_share")
            check_tail_share(critic.num_quantiles, self.config.upper_share, 1, "upper_share")
        except ValueError as error:
            return f"does not fit: {error}"
        return super().misfit(critic)
