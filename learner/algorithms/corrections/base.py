"""What is done to observed rewards before estimation."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective
from learner.models.spec import CriticConfig
from rollout.component import Component


class RewardCorrection(Component):
    """Changes or weighs observed rewards before estimation; combines with any algorithm and with other corrections.

    A correction sees what the learner sees: observed rewards, never clean ones. Statistics must be taken over all ranks
    (``world.gather``), so that every rank corrects alike.
    """

    needs_critic: bool = False
    """Whether it reads ``old.critic``."""
    needs_reference: bool = False
    """Whether it reads ``old.ref_logprobs`` and ``old.ref_entropy``, of the frozen starting policy."""

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

    @abstractmethod
    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """Apply the correction to what earlier ones left."""

    def state_dict(self) -> dict[str, Any]:
        """Running statistics, for the checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore running statistics."""
