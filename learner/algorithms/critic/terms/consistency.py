"""Agreement of the heads."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from learner.algorithms.critic.terms.base import CriticTerm, TokenView
from learner.maths.losses.tail import head_consistency
from learner.models.spec import CriticConfig


class HeadConsistency(CriticTerm):
    """Eq 10 of 2512.03847: the mean squared distance of pairs of heads, [n]."""

    name = "head_consistency"

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`CriticTerm`."""
        return "compares heads, and critic.num_heads is 1" if critic.num_heads == 1 else ""

    def __call__(self, view: TokenView) -> Tensor:
        """See :func:`learner.maths.losses.tail.head_consistency`."""
        return head_consistency(view.q)

    def compile_into(self, form: dict[str, Any]) -> bool:
        """See :class:`CriticTerm`."""
        form["coef"][self.name] = self.config.coef
        return True
