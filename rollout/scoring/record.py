"""What became of a trajectory's reward, the clean score included. The learner may not import this file."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rollout.rewards.errors import RewardErrorKind
from rollout.trajectory import SampleRequest, TokenTrajectory


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


Subject = TokenTrajectory | SampleRequest
"""What a record is about: a trajectory, or the request for one that did not come about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRecord:
    """Everything known about the score of one trajectory. For metrics and reports; never sent to the learner.

    Attributes:
        observed: the score that training sees (after noise), or None if there is none.
        clean: the best known score: that of ``reward.gold`` if there is such, else the score before noise; None if
            there is none.
        corrupted: whether the noise model changed the score.
        parts: clean score of each configured reward by name, of those that gave one.
        outcome: see :class:`RewardOutcome`.
        error: one line on what went wrong, or the reason of an abstention; empty if there is a score.
        error_kind: see :class:`RewardErrorKind`; None unless ``outcome`` is ``ERROR``.
        num_retries: calls of reward functions that were made again after an infrastructure error.
        cached: whether a score was found in the cache instead of computed.
        delay_updates: weight updates after the sampling one until training may see the score.
        gold_error: why the clean score is not known though gold was asked for it; empty otherwise.
        final_answer: of the response, where votes score it; None if it has none.
        question_key, answer_key: see :class:`rollout.trajectory.Label`.
        gold_label: the true score that training may see, see ``reward.gold_labels``; None of nearly all.
    """

    prompt_id: str
    sample_index: int
    observed: float | None = None
    clean: float | None = None
    corrupted: bool = False
    parts: dict[str, float] = field(default_factory=dict)
    outcome: RewardOutcome
    error: str = ""
    error_kind: RewardErrorKind | None = None
    num_retries: int = 0
    cached: bool = False
    delay_updates: int = 0
    gold_error: str = ""
    final_answer: str | None = None
    question_key: str = ""
    answer_key: str = ""
    gold_label: float | None = None

    @classmethod
    def scored(cls, subject: Subject, score: float) -> RewardRecord:
        """``score`` is what the reward functions say; as long as no noise is put on it, training sees the same."""
        return cls(
            prompt_id=subject.prompt_id,
            sample_index=subject.sample_index,
            observed=score,
            clean=score,
            outcome=RewardOutcome.SCORED,
        )

    @classmethod
    def failed(
        cls, subject: Subject, error: str, kind: RewardErrorKind | None, observed: float | None = None
    ) -> RewardRecord:
        """There should be a score, and there is none.

        Args:
            error: one line on what went wrong.
            kind: whose fault it is; None if no reward function was called.
            observed: what training is given in its place, see ``reward.error_reward``.
        """
        return cls(
            prompt_id=subject.prompt_id,
            sample_index=subject.sample_index,
            observed=observed,
            outcome=RewardOutcome.ERROR,
            error=error,
            error_kind=kind,
        )

    @classmethod
    def abstained(cls, subject: Subject, reason: str) -> RewardRecord:
        """A reward function cannot judge the response."""
        return cls(
            prompt_id=subject.prompt_id,
            sample_index=subject.sample_index,
            outcome=RewardOutcome.ABSTAINED,
            error=reason,
        )

    @classmethod
    def pending(cls, subject: Subject, final_answer: str | None) -> RewardRecord:
        """The votes of the group will score the response by its final answer, if it has one."""
        return cls(
            prompt_id=subject.prompt_id,
            sample_index=subject.sample_index,
            outcome=RewardOutcome.PENDING,
            final_answer=final_answer,
        )

    @classmethod
    def unscored(cls, request: SampleRequest, reason: str) -> RewardRecord:
        """Of a trajectory that did not come about, so that there was nothing to score."""
        return cls.failed(request, reason, None)
