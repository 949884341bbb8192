"""What became of a trajectory's reward, the clean score included. The learner may not import this file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rollout.rewards.errors import RewardErrorKind
from rollout.trajectory import SampleRequest


class RewardOutcome(StrEnum):
    """What became of the attempt to score a trajectory. A failure is never a silent zero."""

    SCORED = "scored"
    """There is a valid number: of the reward functions, or of the votes of the group."""
    PENDING = "pending"
    """The answer has been read, and the votes of its group will score it."""
    ABSTAINED = "abstained"
    """The reward function cannot judge this response, and said why."""
    MISSING = "missing"
    """A noise model withheld the score."""
    ERROR = "error"
    """There is no score, though there should be one; see :class:`RewardErrorKind`."""


@dataclass(frozen=True, slots=True)
class RewardRecord:
    """Everything known about the score of one trajectory. For metrics and reports; never sent to the learner.

    Attributes:
        observed: the score that training sees (after noise), or None if there is none.
        clean: the best known truth: the score of ``reward.gold`` if there is such, else the score before noise; None if
            there is none.
        corrupted: whether the noise model changed the score.
        parts: clean score of each configured reward by name, of those that gave one.
        outcome: see :class:`RewardOutcome`.
        error: one line on what went wrong, or the reason of an abstention; empty if there is a score.
        error_kind: see :class:`RewardErrorKind`; None unless ``outcome`` is ``ERROR``.
        num_retries: calls of reward functions that were made again after an infrastructure error.
        cached: whether a score was found in the cache instead of computed.
        delay_updates: weight updates after the sampling one until training may see the score.
        gold_error: why the true score is not known though it was asked for; empty otherwise.
        answer: the final answer, where votes score it; None if there is none in the response.
    """

    prompt_id: str
    sample_index: int
    observed: float | None
    clean: float | None
    corrupted: bool
    parts: dict[str, float]
    outcome: RewardOutcome
    error: str = ""
    error_kind: RewardErrorKind | None = None
    num_retries: int = 0
    cached: bool = False
    delay_updates: int = 0
    gold_error: str = ""
    answer: str | None = None

    @classmethod
    def unscored(cls, request: SampleRequest, reason: str) -> RewardRecord:
        """Of a trajectory that did not come about, so that there was nothing to score."""
        return cls(request.prompt.prompt_id, request.sample_index, None, None, False, {}, RewardOutcome.ERROR, reason)
