"""A part of the critic's loss that is not about its targets: it constrains what the critic's states may hold."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

from torch import Tensor

from learner.algorithms.records import Estimates, OldOutputs, Rows
from learner.batch import TrainBatch
from learner.maths.collective import Collective
from learner.metrics import Metrics
from learner.models.spec import CriticConfig, CriticOutput
from rollout.component import Component


class Penalty(NamedTuple):
    """One summand of a regulariser.

    Attributes:
        coef: its weight in the critic's loss.
        weights: [batch seq], which tokens count and how much; None: all sampled tokens alike.
        values: [batch seq].
    """

    coef: float
    weights: Tensor | None
    values: Tensor


class CriticRegulariser(Component):
    """The loss gets ``coef * token_mean(weights * values)`` of each penalty. Sample weights do not apply."""

    def misfit(self, critic: CriticConfig) -> str:
        """Why it cannot work with this critic, as the end of a sentence that starts with its name; empty if it can."""
        return ""

    def model_options(self) -> dict[str, Any]:
        """Fields of :class:`learner.models.spec.VariationalCriticConfig` that the critic's model needs for it."""
        return {}

    def prepare(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> tuple[Rows | None, Metrics]:
        """Look at the whole batch once, before the optimiser's steps: what to carry to the loss, and metrics."""
        return None, {}

    def model_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """Further arguments of the critic's forward pass in training; see ``Algorithm.critic_inputs``."""
        return {}

    @abstractmethod
    def penalties(self, output: CriticOutput, estimates: Estimates, progress: float) -> dict[str, Penalty]:
        """Each summand by the name it is reported under; ``progress`` is the share of the run's updates done."""
