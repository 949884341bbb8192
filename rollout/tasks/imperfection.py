"""How wrong the demonstrations of a warm start are.

Some facts are shown wrong more often than right, always in the same way. A model that imitates them is confidently
wrong about these facts when it decodes greedily, still right now and then when it samples.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import Field, model_validator

from rollout.component import StrictModel

Fact = TypeVar("Fact")
Value = TypeVar("Value")


class ImperfectionConfig(StrictModel):
    """How wrong the demonstrations are."""

    wrong_facts_frac: float = Field(
        0.2, ge=0.0, le=1.0, description="Share of facts that are shown wrong more often than right."
    )
    wrong_prob_low: float = Field(0.55, ge=0.0, le=1.0, description="Lowest share of wrong showings of such a fact.")
    wrong_prob_high: float = Field(0.7, ge=0.0, le=1.0, description="Highest share of wrong showings of such a fact.")
    slip_prob: float = Field(
        0.05, ge=0.0, le=1.0, description="Highest share of wrong showings of the other facts; the lowest is 0."
    )

    @model_validator(mode="after")
    def _ordered(self) -> ImperfectionConfig:
        if self.wrong_prob_low > self.wrong_prob_high:
            raise ValueError(f"wrong_prob_low {self.wrong_prob_low} is above wrong_prob_high {self.wrong_prob_high}")
        return self

    def draw(
        self, facts: Sequence[Fact], draw_wrong: Callable[[Fact], Value], rng: random.Random
    ) -> dict[Fact, tuple[float, Value]]:
        """For each fact: the share of its demonstrations that are wrong, and what is shown then.

        Args:
            draw_wrong: a wrong value of a fact; may draw from ``rng``.
        """
        bad = set(rng.sample(facts, round(self.wrong_facts_frac * len(facts))))
        table = {}
        for fact in facts:
            low, high = (self.wrong_prob_low, self.wrong_prob_high) if fact in bad else (0.0, self.slip_prob)
            # Facts that are mostly shown right have one too: they slip now and then.
            wrong = draw_wrong(fact)
            table[fact] = (rng.uniform(low, high), wrong)
        return table
