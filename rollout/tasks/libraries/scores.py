"""Questions and scores of the libraries reasoning-gym and verifiers: one question, one response.

A prompt carries where its question comes from (``extra["library"]``), not the question as the library holds it: that
may have no form in JSON, and whoever scores makes the same one again.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from rollout.component.mistakes import ForeignData, PackageMissing
from rollout.rewards.answers.reading import ReadingReward
from rollout.rewards.base import Reward
from rollout.rewards.exact_match import FINAL_ANSWER, check_answer_pattern, find_answer
from rollout.trajectory import Prompt, Trajectory

ORIGIN = "library"
"""Key of ``prompt.extra`` under which a question's origin stands."""
EXTRAS = {"reasoning_gym": "reasoning-gym", "verifiers": "verifiers"}


def require_library(name: str, where: str) -> None:
    """Raise :class:`UserError` unless a library can be imported."""
    if importlib.util.find_spec(name) is None:
        extra = EXTRAS[name]
        raise PackageMissing(f"{where}: needs the package {extra}: pip install 'dvpo[{extra}]', or the package alone")


def gym_data(dataset: str, size: int, seed: int, options: Mapping[str, Any]) -> Any:
    """A data set of reasoning-gym; entry ``i`` is the same in every process.

    Raises:
        UserError: there is no such data set, or an option of it is wrong.
    """
    return _gym_data(dataset, size, seed, json.dumps(options, sort_keys=True))


@functools.lru_cache(maxsize=64)
def _gym_data(dataset: str, size: int, seed: int, options: str) -> Any:
    import reasoning_gym

    try:
        return reasoning_gym.create_dataset(dataset, size=size, seed=seed, **json.loads(options))
    except Exception as error:  # each data set checks its options in its own way, with assertions too
        said = str(error) or "an option has a value that it does not take"
        raise ForeignData(f"data set {dataset!r} of reasoning-gym: {type(error).__name__}: {said}") from error


class ReasoningGymReward(ReadingReward):
    """What reasoning-gym's verifier gives the final answer: 1 for a right one, less or nothing for others."""

    deterministic = True

    class Config(ReadingReward.Config):
        """Options of this reward."""

        answer_pattern: str = Field(
            FINAL_ANSWER,
            description="Regular expression; the answer is its only group in its last match. '(?s)(.*)' is all.",
        )
        threshold: float | None = Field(
            None, gt=0.0, le=1.0, description="1 from this score on, else 0; none: the verifier's own score."
        )

        @field_validator("answer_pattern")
        @classmethod
        def _one_group(cls, pattern: str) -> str:
            return check_answer_pattern(pattern)

    config: ReasoningGymReward.Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        require_library("reasoning_gym", "the reward 'reasoning_gym'")

    def unusable(self, prompt: Prompt) -> str | None:
        """See :meth:`Reward.unusable`; only questions of the task ``reasoning_gym`` have a verifier."""
        return None if ORIGIN in prompt.extra else "it is not from the task 'reasoning_gym'"

    def read_answer(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        said = self.said(trajectory)
        return None if said is None else find_answer(said, self.config.answer_pattern)

    def answer_key(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        return self.read_answer(prompt, trajectory) or ""

    def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        origin = dict(prompt.extra[ORIGIN])
        index = origin.pop("index")
        data = gym_data(**origin)
        score = float(data.score_answer(self.read_answer(prompt, trajectory), data[index]))
        return score if self.config.threshold is None else float(score >= self.config.threshold)


def taskset(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The tasks of a taskset of verifiers, in their order, by name: ``id`` of the data, or their position.

    Raises:
        UserError: it cannot be loaded, or needs more than one response to a question to be scored.
    """
    return _taskset(name, json.dumps(options, sort_keys=True))


@functools.lru_cache(maxsize=16)
def _taskset(name: str, options: str) -> dict[str, Any]:
    from verifiers.v1 import Taskset, TasksetConfig
    from verifiers.v1.utils.generic import concrete_type
    from verifiers.v1.utils.loaders import taskset_class

    where = f"taskset {name!r} of verifiers"
    try:
        found = taskset_class(name)
        config = concrete_type(found, TasksetConfig, origin=Taskset) or TasksetConfig
        made = found(config.model_validate({"id": name, **json.loads(options)}))
        if not made.bounded:
            raise ValueError("it has no end")
        tools = found.toolsets(made.config)
        tasks = list(made)
    except Exception as error:  # a user's module may raise anything
        raise ForeignData(f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:500]}") from error
    if tools:
        raise ForeignData(f"{where}: has tools, and dvpo asks for one response to a question")
    for task in tasks:
        if why := _needs_more(task):
            raise ForeignData(f"{where}: task {task.data.idx}: {why}")
    return {str(task.data.id or task.data.idx): task for task in tasks}


def _needs_more(task: Any) -> str:
    """Why a task cannot be scored by what was said alone, or an empty string. verifiers would skip such rewards."""
    if task.data.prompt is None:
        return "has no prompt; the other side opens the conversation"
    rewards = task.hooks("reward")
    if not rewards and not task.plugged_judges():
        return "has no reward"
    for reward in rewards:
        runtime = inspect.signature(reward).parameters.get("runtime")
        if runtime is not None and runtime.default is inspect.Parameter.empty:
            return f"its reward {reward.__name__!r} needs a runtime (a container), which dvpo does not start"
    return ""


class VerifiersReward(Reward):
    """The sum of the rewards of a task of verifiers, each times its weight, for a trace of one response."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        require_library("verifiers", "the reward 'verifiers'")

    def unusable(self, prompt: Prompt) -> str | None:
        """See :meth:`Reward.unusable`; only questions of the task ``verifiers`` have rewards."""
        return None if ORIGIN in prompt.extra else "it is not from the task 'verifiers'"

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        import verifiers.v1 as vf
        from verifiers.v1.trace import AgentInfo, TraceTask

        origin = prompt.extra[ORIGIN]
        task = taskset(origin["taskset"], origin["options"])[origin["name"]]
        said = vf.MessageNode(message=vf.AssistantMessage(content=trajectory.response_text), sampled=True)
        trace = vf.Trace(
            task=TraceTask(type=type(task).__name__, data=task.data, key=task.key),
            agent=AgentInfo(config=vf.AgentConfig()),
            nodes=[said],
        )
        await task.score(trace, None)
        return float(trace.reward)
