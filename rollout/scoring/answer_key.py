"""What makes two prompts one question, and two responses to it one answer: their true rewards are equal then."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable

from rollout.component import import_object
from rollout.scoring.panel import RewardPanel
from rollout.trajectory import Prompt, Trajectory

log = logging.getLogger(__name__)


def question_key(prompt: Prompt, trajectory: Trajectory) -> str:
    """The same for two rows of data that ask the same and expect the same, whatever their ids.

    A reward sees nothing of a row but what goes in here, so an answer's true reward is the same under both. An
    environment may make a difference by the row's id: of its conversations the key is empty, they stand for their row.
    """
    if trajectory.outcome is not None:
        return ""
    asked = [prompt.task, prompt.messages, prompt.reference, prompt.extra]
    # What has no form in JSON is written as itself: at worst a row then stands for itself.
    text = json.dumps(asked, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class AnswerKey:
    """The key of a response, as ``reward.answer_key`` says.

    Args:
        spec: ``auto``, ``text``, ``none``, or ``module:function`` of the user's.
        functions: the rewards, which read answers.

    Raises:
        UserError: there is no such function.
    """

    def __init__(self, spec: str, functions: RewardPanel) -> None:
        self._spec = spec
        self._read: Callable[[Prompt, Trajectory], str | None] = functions.answer_key
        if ":" in spec:
            self._read = import_object(spec, "reward.answer_key")

    def __call__(self, prompt: Prompt, trajectory: Trajectory) -> str:
        """A short key, or an empty string if the response stands for itself.

        A failure of the user's function costs the key only: the response then stands for itself, and the log says why.
        """
        if self._spec == "none":
            return ""
        try:
            answer = None if self._spec == "text" else self._read(prompt, trajectory)
        except Exception as error:
            log.warning("reward.answer_key failed for prompt %s: %r", prompt.prompt_id, error)
            return ""
        if answer is None and ":" in self._spec:
            return ""
        # A kind in front, so that no answer is ever spelled like the tokens of a text.
        said = f"answer\x1f{answer}" if answer is not None else f"text\x1f{_after_prompt(trajectory)}"
        return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _after_prompt(trajectory: Trajectory) -> str:
    """All that was said, by the policy and by an environment, and whether it was cut."""
    tokens = trajectory.token_ids[trajectory.num_prompt_tokens :]
    return f"{trajectory.finish_reason}\x1f{','.join(map(str, tokens))}"
