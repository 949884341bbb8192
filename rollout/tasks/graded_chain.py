"""``math``: the arithmetic of :mod:`rollout.tasks.chain` at graded difficulty: training questions have 3 to 5 terms.

Besides the splits of ``chain`` there is one for each difficulty, ``terms_3``, ``terms_4`` and ``terms_5`` by default:
questions with that many terms, none of which is in ``train``. ``test`` has all difficulties in equal shares, as
``train`` has; the out-of-domain splits are of the highest one, ``six_terms`` one above it.
"""

from __future__ import annotations

import random

from pydantic import Field, model_validator

from rollout.tasks.chain import Chain

LEVEL = "terms_"


class GradedChain(Chain):
    """Chains of digits whose number of terms varies; see the module's text."""

    name = "math"

    class Config(Chain.Config):
        """Options of the task."""

        min_terms: int = Field(3, ge=2, le=16, description="Digits in the easiest question; num_terms: in the hardest.")
        num_train: int = Field(4096, ge=1, le=1_000_000, description="Training questions.")
        num_eval: int = Field(256, ge=3, le=100_000, description="Questions of each evaluation split.")

        @model_validator(mode="after")
        def _enough_easy_questions(self) -> GradedChain.Config:
            if self.min_terms > self.num_terms:
                raise ValueError(f"min_terms {self.min_terms} is above num_terms {self.num_terms}")
            possible = 10**self.min_terms * 2 ** (self.min_terms - 1)
            # Questions are drawn until they are different: with more than half taken, that may take very long.
            share = (self.num_train + self.num_eval) // (self.num_terms - self.min_terms + 1)
            if 2 * (share + self.num_eval) > possible:
                raise ValueError(
                    f"num_train and num_eval ask for about {share + self.num_eval} questions with min_terms = "
                    f"{self.min_terms}, more than half of the {possible} there are"
                )
            return self

    config: GradedChain.Config

    @property
    def _in_domain_splits(self) -> tuple[str, ...]:
        return ("test", *(f"{LEVEL}{num}" for num in range(self.config.min_terms, self.config.num_terms + 1)))

    def _num_steps(self, split: str, rng: random.Random) -> int:
        if split.startswith(LEVEL):
            return int(split.removeprefix(LEVEL)) - 1
        if split in ("train", "test"):
            return rng.randint(self.config.min_terms, self.config.num_terms) - 1
        return super()._num_steps(split, rng)
