"""Losses of a reward model on preference pairs, named in a configuration by ``type``.

A pair's margin D is the score of the chosen conversation minus that of the rejected one. The losses of direct
preference training have D = beta * (difference of log-ratios), the margin of the policy's *implicit* reward
(2305.18290 Eq 5); a reward model has the rewards themselves, so its margin takes the place of that one and beta is
part of the score's scale.
"""

from __future__ import annotations

from abc import abstractmethod

from pydantic import Field
from torch import Tensor

from learner.reward_model.preference import bradley_terry_loss, dr_dpo_loss, ropo_loss
from rollout.component import Component, StrictModel


class PairLoss(Component):
    """A loss of the margins of a batch of pairs."""

    noise_rate: float = 0.0
    """Share of pairs left out of each pass after the first: those of the greatest loss at its beginning."""

    @abstractmethod
    def __call__(self, margins: Tensor) -> Tensor:
        """The loss of margins [n], a scalar over the batch."""


class BradleyTerry(PairLoss):
    """The mean of -log sig(D) (2203.02155 Eq 1)."""

    def __call__(self, margins: Tensor) -> Tensor:
        return bradley_terry_loss(margins).mean()


class Ropo(PairLoss):
    """ROPO: pairs that the model holds very unlikely pull less, and may be left out (2404.04102)."""

    class Config(StrictModel):
        """Options of this loss."""

        a: float = Field(14.0, gt=1.0, description="A larger one trusts unlikely pairs less.")
        noise_rate: float = Field(
            0.0,
            ge=0.0,
            lt=1.0,
            description="Share of pairs with the greatest loss that each pass after the first leaves out.",
        )

    config: Ropo.Config

    def __init__(self, config: Ropo.Config) -> None:
        super().__init__(config)
        self.noise_rate = config.noise_rate

    def __call__(self, margins: Tensor) -> Tensor:
        return ropo_loss(margins, self.config.a).mean()


class DrDpo(PairLoss):
    """Dr.DPO: a soft minimum over the batch, so that implausible pairs count less (2407.07880)."""

    class Config(StrictModel):
        """Options of this loss."""

        beta_prime: float = Field(1.0, gt=0.0, description="Small ones trust unlikely pairs less; large ones average.")

    config: DrDpo.Config

    def __call__(self, margins: Tensor) -> Tensor:
        return dr_dpo_loss(margins, self.config.beta_prime)


LOSSES: dict[str, str] = {
    "bradley_terry": "learner.reward_model.losses:BradleyTerry",
    "ropo": "learner.reward_model.losses:Ropo",
    "dr_dpo": "learner.reward_model.losses:DrDpo",
}
"""Built-in name -> ``module:Class``."""
