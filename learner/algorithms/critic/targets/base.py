"""From rewards and the old critic to advantages and to what the critic regresses to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from pydantic import Field
from torch import Tensor

from learner.algorithms.invariance import ALIKE, Answer, answer_of, answers, gone
from learner.batch import TrainBatch
from learner.maths.collective import Collective
from learner.maths.returns import Lam, gae
from learner.metrics import Metrics
from learner.models.spec import CriticConfig, CriticOutput
from rollout.component import Component, StrictModel

LEARNED = "the critic, once it has learned such rewards,"
"""What takes a shift of all rewards out of an advantage that is a reward less a value."""


@dataclass(frozen=True)
class OldCritic:
    """The critic before the update over rows of this rank, and the rewards that followed. Everything is detached.

    Attributes:
        rewards: [batch seq], corrected, the KL cost included where it is part of the reward.
        batch: with the corrected scores.
        output: of the critic's model.
        quantiles: [batch seq M], the ensemble: the mean of the heads' sorted quantile functions.
        values: [batch seq], the read-out of the ensemble.
        bootstrap: [batch M], the ensemble after the last action, 0 where the response ended; None: 0 everywhere.
        last_values: [batch], the read-out of ``bootstrap``, or None.
        gamma: discount per sampled token.
        lam_actor: lambda of the advantages, a number or [batch].
        ensemble: [... head M] -> [... M].
        read_out: [... M] -> [...].
        world: the ranks that share the batch.
        lowest: scalar, the least V of all ranks, for a target that ``needs_lowest``; else None.
    """

    rewards: Tensor
    batch: TrainBatch
    output: CriticOutput
    quantiles: Tensor
    values: Tensor
    bootstrap: Tensor | None
    last_values: Tensor | None
    gamma: float
    lam_actor: Lam
    ensemble: Callable[[Tensor], Tensor]
    read_out: Callable[[Tensor], Tensor]
    world: Collective
    lowest: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """[batch seq] bool, the sampled tokens."""
        return self.batch.action_mask

    def with_lowest(self, lowest: Tensor) -> OldCritic:
        """The same, with the least value of all ranks."""
        return replace(self, lowest=lowest)


class Evaluation(NamedTuple):
    """What rewards and the old critic say of each token.

    Attributes:
        advantages: [batch seq], before normalisation; 0 outside ``action_mask``.
        targets: [batch seq K] ascending atoms that the critic regresses to.
        metrics: diagnostics.
        columns: [batch seq] each, what :meth:`CriticTarget.summary` is made of once all rows were looked at.
    """

    advantages: Tensor
    targets: Tensor
    metrics: Metrics
    columns: Mapping[str, Tensor] = {}


class CriticTarget(Component):
    """Base of the targets. As it stands the advantage is GAE of the read-out, and a subclass adds the targets."""

    ignores: tuple[str, ...] = ()
    """Options of the algorithm that have no effect with it; to change one of them is an error."""
    needs_end_values: bool = False
    """Whether it reads ``old.output.end_values``."""
    needs_heads: bool = True
    """Whether it reads the heads in ``old.output.quantile_values``; without, they may be their mean, as one head."""

    by_rows: bool = False
    """Whether what it says of a row depends on that row (and ``lowest``) alone, and it calls no collective: the learner
    then shows it one micro-batch after another, and never has the value distribution of more than one on the device."""
    needs_lowest: bool = False
    """Whether it reads ``old.lowest``."""

    def misfit(self, critic: CriticConfig) -> str:
        """Why it cannot work with this critic, as the end of a sentence that starts with its name; empty if it can."""
        return ""

    def summary(self, columns: Mapping[str, Tensor], mask: Tensor) -> Metrics:
        """Metrics of what :class:`Evaluation` carried in ``columns``, of all rows of this rank; [batch seq] each."""
        return {}

    def answer(self) -> Answer:
        """How the advantages answer to a map of all rewards that the critic has learned."""
        is_plain = type(self).__call__ is CriticTarget.__call__
        return answer_of(self.advantages if is_plain else type(self).__call__)

    def __call__(self, old: OldCritic) -> Evaluation:
        """Advantages and targets of this rank's rows."""
        return Evaluation(self.advantages(old), self.targets(old), {})

    @answers(shift=gone(LEARNED), scale=ALIKE)
    def advantages(self, old: OldCritic) -> Tensor:
        """Scalar GAE of the read-out at ``lam_actor``, [batch seq]."""
        return gae(old.rewards, old.values, old.mask, old.gamma, old.lam_actor, old.last_values)[0]

    @abstractmethod
    def targets(self, old: OldCritic) -> Tensor:
        """Ascending atoms that the critic regresses to, [batch seq K]."""


class WithLambda(StrictModel):
    """The one option of most targets."""

    lam: float = Field(0.95, ge=0.0, le=1.0, description="Lambda of the critic's targets.")
