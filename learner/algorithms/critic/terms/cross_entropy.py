"""Cross-entropy of a categorical critic: values are learned as a classification."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from learner.algorithms.base import without_effect
from learner.algorithms.critic.terms.base import CriticTerm, TokenView, Weighted
from learner.maths.losses.categorical import bin_centres, gauss_histogram, two_hot
from learner.metrics import Mean, Metrics
from learner.models.spec import CriticConfig


class CrossEntropy(CriticTerm):
    """``-sum_i p_i(Y) log softmax(logits)_i`` of each head, p the targets as laws over the bins (2403.03950).

    ``hl_gauss`` smears a target over its neighbours by a normal law, ``two_hot`` splits it between the two bins around
    it, which is C51's projection (1707.06887 Eq 7) and with two bins the binary cross-entropy. Of several atoms p is
    the mean. Targets beyond the outer bins count as those bins; how many is reported. Targets are detached.
    """

    name = "cross_entropy"
    in_units_of_scale = False

    class Config(Weighted):
        """Options of the cross-entropy."""

        coef: float = Field(1.0, gt=0.0, description="Weight of the term in the critic's loss.")
        projection: Literal["hl_gauss", "two_hot"] = Field(
            "hl_gauss", description="'hl_gauss': a normal law around each target; 'two_hot': the two bins around it."
        )
        sigma_ratio: float = Field(
            0.75, gt=0.0, description="Standard deviation of that normal law, in widths of a bin; with hl_gauss only."
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.projection != "hl_gauss":
            without_effect(config, ("sigma_ratio",), f"with projection {config.projection!r}")

    def bind(self, critic: CriticConfig) -> None:
        """See :class:`CriticTerm`."""
        self.bins = critic.bins

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`CriticTerm`."""
        if critic.head == "categorical":
            return ""
        return f"is for a critic of bins, and critic.head is {critic.head!r} (set critic.head to categorical)"

    def __call__(self, view: TokenView) -> Tensor:
        """See :class:`CriticTerm`."""
        if view.output is None or view.output.bin_logits is None:
            raise ValueError("cross_entropy needs the logits of a categorical head")
        logits = view.output.bin_logits[view.action_mask]
        centres = bin_centres(*self.bins, logits.device).to(logits.dtype)
        targets = view.targets.detach().to(logits.dtype)
        if self.config.projection == "hl_gauss":
            law = gauss_histogram(targets, centres, self.config.sigma_ratio)
        else:
            law = two_hot(targets, centres)
        loss: Tensor = -(law.mean(dim=-2).unsqueeze(-2) * logits.log_softmax(dim=-1)).sum(dim=-1)
        return loss

    def metrics(self, view: TokenView) -> Metrics:
        """Share of the targets that no bin reaches."""
        low, high, _ = self.bins
        outside = ((view.targets < low) | (view.targets > high)).double()
        return {"critic/out_of_bins_frac": Mean(float(outside.sum()), float(outside.numel()))}
