"""A conversation as tokens: what the policy samples stays as it is, what is said to it is put in between.

A sampled token is never tokenized again. What a chat template writes after a response (its end, further messages, the
beginning of the next response) is found by rendering a placeholder conversation and looking behind the placeholder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from rollout.component.mistakes import ChatTemplate
from rollout.sampling.engine import Completion
from rollout.trajectory import FinishReason, Message, SampleRequest, Trajectory

QUESTION = "question"
RESPONSE = "dvpo0response0stands0here"
REPLY = "dvpo0reply0stands0here"
ROLE = "assistant"


class ChatTokens:
    """What a tokenizer's chat template makes of messages before and between responses.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def opening(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Everything before the first response."""
        return self._tokenize(self._render(messages, True))

    def between(self, response: Sequence[int], messages: Sequence[Message]) -> tuple[int, ...]:
        """What follows a response: its end, as far as that was not sampled, the messages, and the next one's beginning.

        Args:
            response: the sampled tokens, at least one.
            messages: what is said to it.
        """
        before: list[Message] = [{"role": "user", "content": QUESTION}, {"role": ROLE, "content": RESPONSE}]
        following = self._tokenize(_behind(self._render([*before, *messages], True)))
        last = response[-1]
        # The policy has sampled the first token of its own end, as most chat models do.
        if following[:1] == (last,):
            return following[1:]
        if last == self._tokenizer.eos_token_id:  # such as in " </s>", of which the policy samples the second
            end = self._tokenize(_behind(self._render(before, False)))
            common = [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(end, following, strict=False))]
            if last in common:
                return following[common.index(last) + 1 :]
        return following

    def check(self) -> None:
        """See whether the template can be used like this.

        Raises:
            UserError: it cannot, and why.
        """
        before: list[Message] = [{"role": "user", "content": QUESTION}, {"role": ROLE, "content": RESPONSE}]
        try:
            text = self._render([*before, {"role": "user", "content": REPLY}], True)
        except Exception as error:  # templates raise what they like
            raise ChatTemplate(
                "model.path: the chat template does not render a conversation of several turns, which the task's "
                f"environments need: {type(error).__name__}: {error}"
            ) from error
        # A template that trims, repeats or drops turns would put other tokens before the policy than it was trained on.
        if text.count(RESPONSE) != 1 or REPLY not in _behind(text):
            raise ChatTemplate(
                "model.path: the chat template cannot be used turn by turn, which the task's environments need: it has "
                "to write every response once and as it is, and what is said to it after it"
            )

    def _render(self, messages: Sequence[Message], ready: bool) -> str:
        """The template's text, if ``ready`` with the beginning of the next response."""
        text: str = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ready)
        return text

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()


def _behind(text: str) -> str:
    return text.rpartition(RESPONSE)[2]


@dataclass(slots=True)
class Conversation:
    """What has been said so far, in tokens and in words.

    Attributes:
        request: asks for it.
        token_ids, action_mask, logprobs: see :class:`rollout.trajectory.Trajectory`.
        messages: everything after the prompt.
        completions: the responses.
    """

    request: SampleRequest
    token_ids: list[int]
    action_mask: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, request: SampleRequest, token_ids: Sequence[int], messages: Sequence[Message] = ()) -> Conversation:
        """Nothing sampled yet.

        Args:
            token_ids: everything before the first response.
            messages: those of it that are not the prompt's.
        """
        context = list(token_ids)
        return cls(request, context, [False] * len(context), [0.0] * len(context), list(messages))

    def respond(self, completion: Completion, text: str) -> None:
        """The policy has spoken."""
        self._extend(completion.token_ids, completion.logprobs, True)
        self.completions.append(completion)
        self.texts.append(text)

    def observe(self, token_ids: Sequence[int]) -> None:
        """Put context behind the last response; only if the policy is to speak again."""
        self._extend(token_ids, (0.0,) * len(token_ids), False)

    def _extend(self, token_ids: Sequence[int], logprobs: Sequence[float], sampled: bool) -> None:
        self.token_ids += token_ids
        self.logprobs += logprobs
        self.action_mask += [sampled] * len(token_ids)

    def trajectory(self, engine: str, finish_reason: FinishReason | None = None, **more: Any) -> Trajectory:
        """The record of it.

        Args:
            engine: name of the rollout worker.
            finish_reason: why it ended, if not as the last response did.
            more: further fields.
        """
        return Trajectory(
            prompt_id=self.request.prompt.prompt_id,
            sample_index=self.request.sample_index,
            token_ids=tuple(self.token_ids),
            action_mask=tuple(self.action_mask),
            rollout_logprobs=tuple(self.logprobs),
            response_text="\n".join(self.texts),
            finish_reason=finish_reason or self.completions[-1].finish_reason,
            policy_version_min=min(completion.policy_version_min for completion in self.completions),
            policy_version_max=max(completion.policy_version_max for completion in self.completions),
            engine=engine,
            **more,
        )
