"""What is done to observed rewards before estimation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from learner.algorithms.invariance import ScoreMap
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective
from learner.models.spec import CriticConfig
from rollout.component import Component
from rollout.trajectory import ScoredTrajectory


class RewardCorrection(Component):
    """Changes or weighs observed rewards before estimation; combines with any algorithm and with other corrections.

    A correction sees what the learner sees: observed rewards, never clean ones. Statistics must be taken over all ranks
    (``world.gather``), so that every rank corrects alike.
    """

    needs_critic: bool = False
    """Whether it reads ``old.critic``."""
    needs_reference: bool = False
    """Whether it reads ``old.ref_logprobs``, ``ref_entropy`` and ``ref_end_states``, of the frozen starting policy."""
    changes_scores: bool = True
    """Whether it may change a score; False for one that only sets weights."""
    changes_units: bool = False
    """Whether it moves or stretches all scores, so that what is known of those before does not hold for those after."""
    reads_verdicts: bool = False
    """Whether it takes scores for a verifier's own 0 or 1, so that nothing may change them before it."""
    compares_with_critic: bool = False
    """Whether it compares scores with the critic's values, which are in the units that the last correction leaves."""
    selects: bool = False
    """Whether :meth:`select` may leave trajectories out."""
    min_samples_per_prompt: int = 1
    """Fewest samples of one prompt with which it makes sense."""
    needs_answers: bool = False
    """Whether it cannot do without ``batch.answer_keys``."""
    needs_gold: bool = False
    """Whether it cannot do without gold labels."""
    acts_beyond_tokens: int = 0
    """Sampled tokens that a response must have more than, or it does nothing to it."""

    @property
    def score_map(self) -> ScoreMap | None:
        """What it makes of all scores, where that is the same ``a * r + b`` for all of them; None where it is not."""
        return None

    def left_of(self, earlier: ScoreMap) -> ScoreMap | None:
        """What is left of an earlier correction's map behind this one; None: no such map any more.

        It may take for granted that the critic has learned scores that went through both.
        """
        return None

    reads_gold: bool = False
    """Whether it reads ``batch.gold_labels``."""

    @property
    def takes_estimated_rates(self) -> bool:
        """Whether it wants :meth:`set_rates` to be called with what the run estimates."""
        return False

    def set_rates(self, false_positive_rate: float, false_negative_rate: float) -> None:
        """The reward's error rates, as estimated before this update; the same on every rank."""

    def misfit(self, critic: CriticConfig) -> str:
        """Why it cannot work with this critic, as the end of a sentence that starts with its name; empty if it can."""
        return ""

    def select(self, samples: Sequence[ScoredTrajectory]) -> Sequence[ScoredTrajectory]:
        """Which of a global batch to train on, in order, at least one. Every rank calls it with the same batch."""
        return samples

    @abstractmethod
    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """Apply the correction to what earlier ones left."""

    def state_dict(self) -> dict[str, Any]:
        """Running statistics, for the checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore running statistics."""
