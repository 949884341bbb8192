"""The value after a response's last token, for methods whose advantage reads it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field
from torch import Tensor

from learner.algorithms.critic.terms.base import BatchView, CriticTerm, TokenView, Weighted
from learner.algorithms.records import Denominators, Estimates, LossOutput, Rows
from learner.batch import TrainBatch
from learner.maths.collective import Collective
from learner.maths.losses.value import value_loss
from learner.metrics import Mean, Metrics
from learner.models.spec import CriticConfig, CriticOutput


@dataclass(frozen=True)
class EndTargets(Rows):
    """The corrected score of each trajectory, [batch]."""

    scores: Tensor


class EndValue(CriticTerm):
    """``1/2 (r - V_end)^2`` for the value after the last token (2502.16944): one token more for each trajectory."""

    in_units_of_scale = False
    needs_end_values = True

    class Config(Weighted):
        """Options of the end value."""

        coef: float = Field(1.0, gt=0.0, description="Weight of the term in the critic's loss.")

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`CriticTerm`."""
        return "" if critic.num_quantiles == 1 else "is for a scalar critic; set critic.num_quantiles to 1"

    def prepare(self, view: BatchView, world: Collective) -> tuple[Rows | None, Metrics]:
        """Carry the corrected scores along."""
        return EndTargets(view.batch.scores), {}

    def parts(self, view: TokenView) -> dict[str, tuple[float, Tensor]]:
        """None: the loss is of whole trajectories."""
        return {}

    def rows_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput:
        """See :class:`CriticTerm`; sample weights apply as to every token."""
        carried = estimates.carried(self, EndTargets)
        if carried is None or output.end_values is None:
            raise ValueError("end_value needs the scores that prepare carried and the critic's end values")
        losses = value_loss(output.end_values.squeeze(-1), carried.scores[:, None]).mean(dim=-1)
        if estimates.weights.critic is not None:
            losses = losses * estimates.weights.critic
        end = Mean(float(losses.detach().double().sum()), float(losses.numel()))
        share = self.config.coef * losses.sum() / max(1.0, counts.num_action_tokens)
        return LossOutput(share, {"critic/end_value": end})
