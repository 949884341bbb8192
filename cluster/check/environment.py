"""Whether a task's environments can be talked to in this run; none is spoken to."""

from __future__ import annotations

from typing import Any

from cluster.config.components import reward_specs
from cluster.config.run_config import RunConfig
from rollout.component import user_code
from rollout.component.mistakes import Conflict
from rollout.conversation.conversation import ChatTokens
from rollout.conversation.options import require_methods
from rollout.data.prompts import questions, render
from rollout.tasks.base import Task


def check_environment(config: RunConfig, task: Task, tokenizer: Any | None) -> list[str]:
    """Make the environment of the first training prompt and look at what it needs; returns warnings.

    Raises:
        UserError: it cannot be made or is no environment, the configuration leaves no room or time for conversations,
            the chat template cannot be used turn by turn, or a reward asks for an outcome where there is none.
    """
    rollout, name = config.rollout, config.data.task.type
    if tokenizer is None or not (first := questions(task, "train", name)[:1]):
        return []  # the model or the data are wrong, which is said elsewhere
    prompt = render(tokenizer, first, name)[0]
    doing = f"by make_environment of {name!r}"
    environment = user_code("data.task", doing, lambda: task.make_environment(prompt))
    if environment is None:
        _refuse_outcomes(config, name)
        if rollout.max_conversation_tokens is None:
            return []
        return [f"rollout.max_conversation_tokens: task {name!r} has no environments; this only reserves room"]
    require_methods(environment, f"data.task: what make_environment of {name!r} gives")
    if rollout.max_conversation_tokens is None:
        least = rollout.longest_tokens
        raise Conflict(
            f"rollout.max_conversation_tokens: task {name!r} has environments, so say how many tokens a conversation "
            f"may have: prompt, up to {rollout.max_turns} responses (rollout.max_turns) and what is said between them; "
            f"at least {least} for the prompt and one response"
        )
    longest = (rollout.max_turns + 1) * rollout.environment_timeout_s
    if longest >= config.recovery.request_timeout_s:
        raise Conflict(
            f"rollout.environment_timeout_s: reset and {rollout.max_turns} steps may take {longest:g} s, but a "
            f"conversation that takes recovery.request_timeout_s = {config.recovery.request_timeout_s:g} counts as hung"
        )
    ChatTokens(tokenizer).check()
    return []


def _refuse_outcomes(config: RunConfig, task: str) -> None:
    for place, spec in reward_specs(config).items():
        if spec.type == "outcome":
            raise Conflict(f"{place}: 'outcome' is the verdict of an environment, and task {task!r} has none")
