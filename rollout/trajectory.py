"""The records that flow from the sampler to the learner.

Conventions, stated once here and relied on everywhere:

* Every sequence array is aligned to ``token_ids``; entry ``t`` belongs to token ``t``. A log-probability at ``t`` is
  that of token ``t`` given the tokens before it. Entries that do not belong to a sampled token are 0.0.
* ``action_mask`` is true exactly on the tokens that the policy sampled: not on the prompt, not on text that an
  environment or a user wrote between turns.
* The clean score never travels with a trajectory. It lives in :class:`rollout.scoring.record.RewardRecord`, which goes
  to the metrics; the learner is handed tokens and the *observed* reward (:class:`ScoredTrajectory`), and nothing else.

Records with more than three fields are built with keywords only: two numbers that change places are a silent fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

Message = dict[str, str]
"""One chat message: ``{"role": ..., "content": ...}``."""


class FinishReason(StrEnum):
    """Why a response ended."""

    STOP = "stop"
    """The policy sampled the end-of-turn token or a stop string."""
    LENGTH = "length"
    """The response reached ``max_response_tokens`` and was cut."""
    ABORT = "abort"
    """The request was cancelled; the trajectory must not be trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question to the policy.

    Attributes:
        prompt_id: unique in its data set and stable between runs; random streams derive from it.
        messages: the chat messages that ``token_ids`` were rendered from.
        token_ids: the rendered prompt, ready for the sampler, as ints.
        reference: what the verifier compares with, or None if the data set has no answers.
        task: name of the task or data set the prompt comes from.
        extra: any further columns of the data row, as JSON values; a task of your own may put anything in here.
    """

    prompt_id: str
    messages: tuple[Message, ...]
    token_ids: tuple[int, ...]
    reference: str | None
    task: str
    extra: dict[str, Any] = field(default_factory=dict)


REPLACEMENT_STRIDE = 10**12
"""Distance of a sample's index to that of its replacement; more than the samples of one prompt in any run."""


def original_index(sample_index: int) -> int:
    """Index of the sample in whose place ``sample_index`` is, through all replacements; itself if it is none."""
    return sample_index % REPLACEMENT_STRIDE


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """Ask for one trajectory: sample ``sample_index`` of ``prompt``.

    ``sample_index`` counts over the whole run (epoch * samples_per_prompt + i), so that (prompt_id, sample_index)
    names a trajectory permanently and its random stream is never used twice. The one asked for in the place of a sample
    that was dropped has the index of that sample plus :data:`REPLACEMENT_STRIDE`.
    """

    prompt: Prompt
    sample_index: int

    @property
    def prompt_id(self) -> str:
        """Of the prompt."""
        return self.prompt.prompt_id

    @property
    def trajectory_id(self) -> str:
        """``prompt_id#sample_index``, unique in the run."""
        return f"{self.prompt.prompt_id}#{self.sample_index}"

    def replacement(self) -> SampleRequest:
        """The request that takes the place of this one, whose sample is dropped."""
        return replace(self, sample_index=self.sample_index + REPLACEMENT_STRIDE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a conversation; travels with the trajectory and is what rewards look at.

    Attributes:
        metrics: numbers of the conversation by name, for example ``{"tcr": 1.0, "acr": 0.5}``.
        facts: anything else that can be written as JSON.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTrajectory:
    """The tokens of a trajectory: all of it that the learner is given.

    It has no field for texts, nor for what an environment says of the conversation, which may be the clean score.

    Attributes:
        prompt_id: see :class:`Prompt`.
        sample_index: see :class:`SampleRequest`.
        token_ids: prompt, responses and what was said between them, ints, length T; the last one is sampled.
        action_mask: length T, true on sampled tokens.
        rollout_logprobs: length T, log-probability under the distribution actually sampled from (after temperature),
            in nats; 0.0 where ``action_mask`` is false.
        finish_reason: why the last turn ended.
        policy_version_min, policy_version_max: oldest and newest weight version that sampled one of the tokens.
    """

    prompt_id: str
    sample_index: int
    token_ids: tuple[int, ...]
    action_mask: tuple[bool, ...]
    rollout_logprobs: tuple[float, ...]
    finish_reason: FinishReason
    policy_version_min: int
    policy_version_max: int

    @property
    def trajectory_id(self) -> str:
        """``prompt_id#sample_index``, unique in the run."""
        return f"{self.prompt_id}#{self.sample_index}"

    @property
    def num_response_tokens(self) -> int:
        """Number of sampled tokens."""
        return sum(self.action_mask)

    @property
    def response_token_ids(self) -> tuple[int, ...]:
        """The sampled tokens of all turns."""
        return tuple(token for token, sampled in zip(self.token_ids, self.action_mask, strict=True) if sampled)

    @property
    def num_prompt_tokens(self) -> int:
        """Number of tokens before the first sampled one."""
        return self.action_mask.index(True) if True in self.action_mask else len(self.token_ids)

    @property
    def num_observation_tokens(self) -> int:
        """Number of tokens between and after the responses that the policy did not sample."""
        return len(self.token_ids) - self.num_prompt_tokens - self.num_response_tokens

    @property
    def num_turns(self) -> int:
        """Number of responses of the policy."""
        mask = self.action_mask
        return sum(here and not before for before, here in zip((False, *mask), mask, strict=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory(TokenTrajectory):
    """One sampled response (or several turns of them) together with its prompt: what is scored and written down.

    Attributes:
        response_text: the decoded sampled text, special tokens removed; of several turns joined by newlines.
        engine: name of the rollout worker that produced it (reports only).
        messages: what an environment and the policy said after the prompt, in order, the policy as ``assistant``;
            empty without an environment.
        outcome: what the environment says of the conversation; None without one.
        failure: what the environment did wrong, if there is no whole conversation for it; else empty. Such a trajectory
            has no sampled token and is neither scored nor trained on.
    """

    response_text: str
    engine: str = ""
    messages: tuple[Message, ...] = ()
    outcome: Outcome | None = None
    failure: str = ""

    @classmethod
    def failed(cls, request: SampleRequest, reason: str, engine: str = "") -> Trajectory:
        """What stands for a trajectory that did not come about: the prompt and the reason."""
        prompt, number = request.prompt, len(request.prompt.token_ids)
        return cls(
            prompt_id=prompt.prompt_id,
            sample_index=request.sample_index,
            token_ids=prompt.token_ids,
            action_mask=(False,) * number,
            rollout_logprobs=(0.0,) * number,
            response_text="",
            finish_reason=FinishReason.ABORT,
            policy_version_min=0,
            policy_version_max=0,
            engine=engine,
            failure=reason,
        )

    def for_learner(self) -> TokenTrajectory:
        """What the learner may see: a record of the tokens that has no place for anything else."""
        return TokenTrajectory(**{kept.name: getattr(self, kept.name) for kept in fields(TokenTrajectory)})

    @property
    def conversation(self) -> dict[str, Any]:
        """What was said after the prompt, and what came of it, for files and services; empty without an environment."""
        if self.outcome is None:
            return {}
        outcome = {"metrics": self.outcome.metrics, "facts": self.outcome.facts}
        return {"conversation": self.messages, "outcome": outcome}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectorySummary:
    """What the controller needs to know of a trajectory whose tokens stay in the object store.

    Attributes:
        num_..., failure: see :class:`Trajectory`.
        outcome_metrics: the numbers of the environment's outcome.
        surprise: mean of ``-log pi`` over the sampled tokens, in nats; its expectation is the policy's entropy.
    """

    trajectory_id: str
    num_prompt_tokens: int
    num_response_tokens: int
    finish_reason: FinishReason
    policy_version_min: int
    policy_version_max: int
    num_observation_tokens: int = 0
    num_turns: int = 1
    outcome_metrics: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""
    surprise: float = 0.0

    @classmethod
    def of(cls, trajectory: Trajectory) -> TrajectorySummary:
        """Summarise ``trajectory``."""
        return cls(
            trajectory_id=trajectory.trajectory_id,
            num_prompt_tokens=trajectory.num_prompt_tokens,
            num_response_tokens=trajectory.num_response_tokens,
            finish_reason=trajectory.finish_reason,
            policy_version_min=trajectory.policy_version_min,
            policy_version_max=trajectory.policy_version_max,
            num_observation_tokens=trajectory.num_observation_tokens,
            num_turns=trajectory.num_turns,
            outcome_metrics={} if trajectory.outcome is None else trajectory.outcome.metrics,
            failure=trajectory.failure,
            surprise=-sum(trajectory.rollout_logprobs) / max(1, trajectory.num_response_tokens),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What training is told of a trajectory beside its tokens.

    Attributes:
        reward: the observed score; the learner puts it on the last action token.
        group_id: trajectories of the same prompt and epoch share it.
        question_key: the same for all rows of the data that ask and expect the same. Empty: the prompt is its own.
        answer_key: what the response answers; responses to one question with the same key have the same true reward.
            Empty if that is not known: the response then stands for itself.
        gold_label: the true reward, of the few that the user lets training know (``reward.gold_labels``); else None.
            No other clean score comes this way.
        weight: factor of its losses, above 0; not 1 where prompts have unequal numbers of samples.
    """

    reward: float
    group_id: str
    question_key: str = ""
    answer_key: str = ""
    gold_label: float | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredTrajectory:
    """What the learner trains on: tokens and a label. There is no clean score in here but a gold label, by design.
    Built from a whole :class:`Trajectory`, it keeps the tokens and drops the rest.

    Attributes:
        trajectory: the sampled tokens.
        reward, group_id, question_key, answer_key, gold_label, weight: see :class:`Label`.
    """

    trajectory: TokenTrajectory
    reward: float
    group_id: str
    question_key: str = ""
    answer_key: str = ""
    gold_label: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        # Here and not where batches are put together, so that no caller can forget it.
        if isinstance(self.trajectory, Trajectory):
            object.__setattr__(self, "trajectory", self.trajectory.for_learner())
