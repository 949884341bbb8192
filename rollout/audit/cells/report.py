"""What the repeated scores of a run say of its reward, in lines for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rollout.audit.cells.measured import MeasuredRates
from rollout.audit.cells.rates import REPEATS
from rollout.audit.intervals import Estimate

PERSISTENT = 0.05
"""Rate that a persistent error surely has before labels are advised against it."""
TRANSIENT = 0.05
"""The same of a transient one, before repeats are counted as worth something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatReport:
    """What the scores that a run has recorded say of how its reward errs.

    Attributes:
        num_scores, num_prompts: what there was to look at.
        num_contradictions: answers of which samples with different true scores were taken for one.
        rates: see :class:`MeasuredRates`.
    """

    num_scores: int
    num_prompts: int
    num_contradictions: int
    rates: MeasuredRates

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {**asdict(self), "advice": list(self.advice())}

    def lines(self) -> list[str]:
        """What is printed."""
        found = self.rates
        shown = [
            f"{self.num_scores:,} scores of {found.num_cells:,} answers to {self.num_prompts:,} prompts",
            f"{found.num_repeated:,} of them were scored {REPEATS} times or more; {found.num_gold:,} true scores known",
            *_pair("errors drawn anew at each score", found.rho_plus, found.rho_minus),
            *_pair("errors that repeat with the answer", found.pi_plus, found.pi_minus),
            *_pair("both together", found.total_plus, found.total_minus),
        ]
        if found.rho_plus is not None and not found.anchored:
            shown.append("no true score says which verdict is right: that most scores are right is taken for granted")
        shown += [f"not known: {reason}" for reason in found.reasons]
        return shown + [f"* {line}" for line in self.advice()]

    def advice(self) -> Iterator[str]:
        """What to do about it."""
        found = self.rates
        if self.num_contradictions:
            yield (
                f"{self.num_contradictions} answers have different true scores at once: reward.answer_key joins what "
                "is not the same"
            )
        if found.pi_plus is not None and found.pi_minus is not None:
            if max(found.pi_plus.low, found.pi_minus.low) > PERSISTENT:
                yield (
                    "some verdicts stay wrong however often an answer is scored: mend the reward, or let labels say so "
                    "(reward.gold_labels with algorithm.reward_correction: [evidence])"
                )
        elif found.rho_plus is not None:
            yield (
                "errors that repeat with the answer cannot be seen without true scores: set reward.gold, and "
                "gold_share for a few hundred of them"
            )
        if found.rho_plus is not None and found.rho_minus is not None:
            if max(found.rho_plus.low, found.rho_minus.low) > TRANSIENT:
                yield "scores of one answer differ, so several of them say more than one: evidence remembers them"
            yield f"intervals half as wide take {4 * found.num_repeated:,} answers scored {REPEATS} times or more"


def _pair(name: str, plus: Estimate | None, minus: Estimate | None) -> list[str]:
    if plus is None or minus is None:
        return []
    return [f"{name}: false positives {plus}, false negatives {minus}"]
