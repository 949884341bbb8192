"""The per-token objective of the policy, as a piece that combines with any way to estimate advantages."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from learner.algorithms.records import Estimates, OldOutputs, PolicyInputs, Rows
from learner.batch import TrainBatch
from learner.maths.collective import Collective
from learner.maths.losses.policy import ClippedLoss
from learner.metrics import Metrics
from rollout.component import Component


class PolicyObjective(Component):
    """Takes the place of the clipped surrogate of :class:`learner.algorithms.clipped_policy.ClippedPolicy`.

    KL penalty, entropy bonus, sample weights and the sum over tokens stay the algorithm's.
    """

    needs_reference: bool = False
    """Whether it reads ``PolicyInputs.ref_logprobs``."""
    needs_old_logprobs: bool = False
    """Whether :meth:`prepare` reads ``old.logprobs``."""
    over_sampler: bool = False
    """Whether its ratio is already over the sampler's policy, so that no importance weight comes on top."""
    replaces: tuple[str, ...] = ("clip_ratio_low", "clip_ratio_high", "dual_clip")
    """Options of the algorithm that have no effect with it; to change one of them is an error."""
    reads_verdicts: bool = False
    """Whether it takes scores for a verifier's own 0 or 1, so that no correction may change them."""
    inert_in_first_step: tuple[str, ...] = ()
    """Its options that bound the ratio to the policy before the update, which in a batch's first step is 1."""
    is_proportional: bool = False
    """Whether twice the advantages give twice the loss, so that their size is nothing to the optimiser."""

    def prepare(
        self, advantages: Tensor, batch: TrainBatch, old: OldOutputs, world: Collective
    ) -> tuple[Rows | None, Metrics]:
        """Look at the whole batch once, before the optimiser's steps: what to carry to the loss, and metrics.

        :meth:`__call__` finds what was carried as ``estimates.carried(self, ...)``.

        Args:
            advantages: [batch seq] of this rank's rows, normalised, detached.
        """
        return None, {}

    @abstractmethod
    def __call__(self, inputs: PolicyInputs, estimates: Estimates) -> ClippedLoss:
        """Loss of each token, [batch seq], to be minimised; 0 outside ``action_mask``."""
