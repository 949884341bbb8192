"""Conversations on a scripted engine: turns, masks, budgets, seeds, and environments that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from rollout.config import RolloutConfig, SamplingConfig
from rollout.conversation.runner import Runner
from rollout.environment import Observation
from rollout.sampling.engine import Completion, LoadOutcome
from rollout.sampling.weight_check import TensorFact
from rollout.seeding import stream_seed
from rollout.trajectory import (
    FinishReason,
    Message,
    Outcome,
    Prompt,
    SampleRequest,
    TokenTrajectory,
    Trajectory,
    TrajectorySummary,
)
from tests.rollout.chat_templates import named

TOKENIZER = named("chatml")
END = TOKENIZER.convert_tokens_to_ids("<|im_end|>")
RUN_SEED = 5


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


MESSAGES: tuple[Message, ...] = ({"role": "user", "content": "Begin."},)
OPENING = "<|im_start|>user\nBegin.<|im_end|>\n<|im_start|>assistant\n"
REQUEST = SampleRequest(
    Prompt(prompt_id="p", messages=MESSAGES, token_ids=ids(OPENING), reference=None, task="game"), 3
)


@dataclass
class ScriptedEngine:
    """Says the next line of its script, with an end unless the line is longer than it may be."""

    script: list[str]
    calls: list[tuple[str, SamplingConfig, int | None]] = field(default_factory=list)

    async def generate(self, token_ids: tuple[int, ...], sampling: SamplingConfig, seed: int | None) -> Completion:
        text = self.script[len(self.calls)]
        version = len(self.calls)
        self.calls.append((TOKENIZER.decode(list(token_ids)), sampling, seed))
        said = (*ids(text), END)
        cut = said[: sampling.max_response_tokens]
        reason = FinishReason.STOP if cut == said else FinishReason.LENGTH
        logprobs = tuple(-0.25 * (i + 1) for i in range(len(cut)))
        return Completion(
            token_ids=cut,
            logprobs=logprobs,
            text=text,
            finish_reason=reason,
            policy_version_min=version,
            policy_version_max=version + 1,
        )

    async def score(self, token_ids: tuple[int, ...]) -> list[float]:
        raise NotImplementedError

    async def load_weights(self, weights: dict[str, Any], facts: Mapping[str, TensorFact], version: int) -> LoadOutcome:
        raise NotImplementedError

    async def stats(self) -> dict[str, float]:
        raise NotImplementedError

    async def shutdown(self) -> None:
        raise NotImplementedError


class Echo:
    """Says what it heard, and is done after some turns."""

    def __init__(self, turns: int = 3, greeting: str = "", farewell: str = "") -> None:
        self.turns, self.greeting, self.farewell = turns, greeting, farewell
        self.heard: list[str] = []
        self.seed: int | None = None
        self.num_closed = 0

    async def reset(self, prompt: Prompt, seed: int) -> tuple[Message, ...]:
        self.seed = seed
        return ({"role": "user", "content": self.greeting},) if self.greeting else ()

    async def step(self, response: str) -> Observation:
        self.heard.append(response)
        if len(self.heard) == self.turns:
            farewell = ({"role": "user", "content": self.farewell},) if self.farewell else ()
            return Observation(farewell, done=True)
        return Observation(({"role": "user", "content": f"{response}?"},))

    def outcome(self) -> Outcome:
        return Outcome({"turns": len(self.heard)}, {"heard": self.heard})

    async def close(self) -> None:
        self.num_closed += 1


def runner(engine: ScriptedEngine, environment: Any, response: int = 16, **options: Any) -> Runner:
    options = {"max_prompt_tokens": 64, "max_conversation_tokens": 1000, **options}
    config = RolloutConfig(sampling={"max_response_tokens": response}, **options)
    return Runner(engine, TOKENIZER, config, RUN_SEED, "rollout-0", lambda prompt: environment)


def sampled(trajectory: Trajectory) -> list[str]:
    """The text of each run of sampled tokens."""
    marked = zip(trajectory.token_ids, trajectory.action_mask, strict=True)
    text = "".join(TOKENIZER.decode([token]) if is_sampled else "\x00" for token, is_sampled in marked)
    return [part for part in text.split("\x00") if part]


async def test_a_conversation_of_three_turns() -> None:
    engine, echo = ScriptedEngine(["one", "two", "three"]), Echo(farewell="bye")
    trajectory = await runner(engine, echo).sample(REQUEST)
    assert TOKENIZER.decode(list(trajectory.token_ids)) == (
        OPENING
        + "one<|im_end|>\n<|im_start|>user\none?<|im_end|>\n<|im_start|>assistant\n"
        + "two<|im_end|>\n<|im_start|>user\ntwo?<|im_end|>\n<|im_start|>assistant\n"
        + "three<|im_end|>"  # what nobody responds to is no context
    )
    assert sampled(trajectory) == ["one<|im_end|>", "two<|im_end|>", "three<|im_end|>"]
    assert trajectory.response_token_ids == ids("one<|im_end|>two<|im_end|>three<|im_end|>")
    logprobs = [-0.25 * (i + 1) for length in (4, 4, 6) for i in range(length)]
    marked = zip(trajectory.rollout_logprobs, trajectory.action_mask, strict=True)
    assert [logprob for logprob, is_sampled in marked if is_sampled] == logprobs
    assert sum(trajectory.rollout_logprobs) == sum(logprobs)
    assert echo.heard == ["one", "two", "three"] and echo.num_closed == 1
    assert trajectory.response_text == "one\ntwo\nthree"
    assert [(m["role"], m["content"]) for m in trajectory.messages] == [
        ("assistant", "one"), ("user", "one?"), ("assistant", "two"), ("user", "two?"), ("assistant", "three"),
        ("user", "bye"),
    ]  # fmt: skip
    assert trajectory.outcome == Outcome({"turns": 3.0}, {"heard": ["one", "two", "three"]})
    assert trajectory.finish_reason is FinishReason.STOP
    assert (trajectory.policy_version_min, trajectory.policy_version_max) == (0, 3)
    between = len(ids("\n<|im_start|>user\none?<|im_end|>\n<|im_start|>assistant\n"))
    summary = TrajectorySummary.of(trajectory)
    assert summary.num_prompt_tokens == trajectory.num_prompt_tokens == len(ids(OPENING))
    assert (summary.num_turns, summary.num_response_tokens) == (3, 14)
    assert summary.num_observation_tokens == 2 * between
    assert summary.outcome_metrics == {"turns": 3.0}
    assert json.loads(json.dumps(trajectory.conversation))["outcome"]["facts"] == {"heard": echo.heard}


async def test_seeds_are_named_by_the_request_and_the_turn() -> None:
    engine, echo = ScriptedEngine(["a", "b"]), Echo(turns=2)
    await runner(engine, echo).sample(REQUEST)
    assert echo.seed == stream_seed(RUN_SEED, "p", 3, "environment")
    seeds = [seed for _, _, seed in engine.calls]
    assert seeds == [stream_seed(RUN_SEED, "p", 3, purpose) for purpose in ("sampling", "sampling.1")]
    greedy = ScriptedEngine(["a", "b"])
    answer = await runner(greedy, Echo(turns=2)).respond_greedily(REQUEST)
    assert [(sampling.temperature, seed) for _, sampling, seed in greedy.calls] == [(0.0, None)] * 2
    assert answer.num_turns == 2


async def test_without_an_environment_it_is_one_response() -> None:
    engine = ScriptedEngine(["only"])
    trajectory = await runner(engine, None, max_conversation_tokens=None).sample(REQUEST)
    assert engine.calls == [
        (OPENING, SamplingConfig(max_response_tokens=16), stream_seed(RUN_SEED, "p", 3, "sampling"))
    ]
    assert (trajectory.response_text, trajectory.messages, trajectory.outcome) == ("only", (), None)
    assert (trajectory.num_turns, trajectory.num_observation_tokens) == (1, 0)
    assert trajectory.conversation == {}


async def test_what_reset_returns_follows_the_prompt() -> None:
    engine = ScriptedEngine(["one"])
    trajectory = await runner(engine, Echo(turns=1, greeting="Hello.")).sample(REQUEST)
    opening = "<|im_start|>user\nBegin.<|im_end|>\n<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"
    assert engine.calls[0][0] == opening
    assert trajectory.num_prompt_tokens == len(ids(opening))
    assert [message["content"] for message in trajectory.messages] == ["Hello.", "one"]


async def test_a_turn_that_is_cut_gets_an_end_that_is_not_trained_on() -> None:
    engine = ScriptedEngine(["abcdefgh", "b"])
    trajectory = await runner(engine, Echo(turns=2), response=4).sample(REQUEST)
    assert sampled(trajectory) == ["abcd", "b<|im_end|>"]
    assert "abcd<|im_end|>\n<|im_start|>user\nabcd?" in TOKENIZER.decode(list(trajectory.token_ids))
    assert trajectory.finish_reason is FinishReason.STOP  # that of the last turn


async def test_most_turns_cut_the_conversation() -> None:
    engine, echo = ScriptedEngine(["a", "b", "c"]), Echo(turns=3)
    trajectory = await runner(engine, echo, max_turns=2).sample(REQUEST)
    assert trajectory.finish_reason is FinishReason.LENGTH
    assert sampled(trajectory) == ["a<|im_end|>", "b<|im_end|>"]
    assert trajectory.messages[-1] == {"role": "user", "content": "b?"}  # said, and not responded to
    assert trajectory.outcome is not None and trajectory.outcome.metrics == {"turns": 2.0}
    assert echo.num_closed == 1


@pytest.mark.parametrize(("spare", "turns", "last"), [(0, 1, "a<|im_end|>"), (1, 2, "b"), (2, 2, "b<|im_end|>")])
async def test_the_token_budget_cuts_the_conversation(spare: int, turns: int, last: str) -> None:
    """Prompt, one turn and its observation fit exactly; then what is spare is left for the second response."""
    first = len(ids(OPENING + "a<|im_end|>\n<|im_start|>user\na?<|im_end|>\n<|im_start|>assistant\n"))
    options = {"max_prompt_tokens": len(ids(OPENING)), "max_conversation_tokens": first + spare}
    trajectory = await runner(ScriptedEngine(["a", "b"]), Echo(turns=2), **options).sample(REQUEST)
    assert trajectory.num_turns == turns
    assert sampled(trajectory)[-1] == last
    assert len(trajectory.token_ids) <= first + spare
    assert trajectory.finish_reason is (FinishReason.STOP if spare == 2 else FinishReason.LENGTH)


async def test_a_greeting_that_leaves_no_room_fails() -> None:
    trajectory = await runner(ScriptedEngine([]), Echo(greeting="x" * 1000)).sample(REQUEST)
    assert "prompt and what reset returned have" in trajectory.failure


Behaviour = Callable[..., Awaitable[Any]]


def misbehaving(**methods: Any) -> Echo:
    echo = Echo()
    for name, method in methods.items():
        setattr(echo, name, method)
    return echo


async def hang(*_: Any) -> None:
    await asyncio.Event().wait()


async def refuse_to_be_cancelled(*_: Any) -> Observation:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            return Observation(done=True)


def raising(error: BaseException) -> Behaviour:
    async def method(*_: Any) -> Any:
        raise error

    return method


def returning(value: Any) -> Behaviour:
    async def method(*_: Any) -> Any:
        return value

    return method


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        ({"reset": raising(OSError("no game server"))}, "reset: OSError: no game server"),
        ({"step": raising(SystemExit(1))}, "step: RuntimeError: SystemExit(1)"),
        ({"step": raising(asyncio.CancelledError())}, "step cancelled itself"),
        ({"reset": hang}, "reset gave no answer within 0.1 s"),
        ({"step": refuse_to_be_cancelled}, "step gave no answer within 0.1 s"),
        ({"step": returning(None)}, "step returned None, which is not an Observation"),
        ({"step": returning(Observation())}, "step returned no message, and the conversation is not done"),
        ({"step": returning(Observation(({"role": "user"},)))}, "which is not {'role': ..., 'content': ...}"),
        ({"reset": returning("Hello")}, "reset returned 'Hello', which is no sequence of messages"),
        ({"reset": None}, "reset: TypeError"),
        ({"outcome": dict}, "outcome returned {}, which is not an Outcome"),
        ({"outcome": lambda: Outcome({"score": float("nan")})}, "metric 'score' is nan, which is not a finite number"),
        ({"outcome": lambda: Outcome({"my score": 1.0})}, "'my score' is no name of a metric"),
        ({"outcome": lambda: Outcome({}, {"x": object()})}, "its facts cannot be written as JSON"),
    ],
)
async def test_what_an_environment_does_wrong_fails_its_trajectory(methods: dict[str, Any], reason: str) -> None:
    echo = misbehaving(**methods)
    trajectory = await runner(ScriptedEngine(["a"] * 3), echo, environment_timeout_s=0.1).sample(REQUEST)
    assert reason in trajectory.failure
    assert (trajectory.num_response_tokens, trajectory.num_turns) == (0, 0)
    assert trajectory.finish_reason is FinishReason.ABORT
    assert TrajectorySummary.of(trajectory).failure == trajectory.failure
    assert echo.num_closed == 1


async def test_an_environment_that_cannot_be_made_fails_its_trajectory() -> None:
    def make(prompt: Prompt) -> Any:
        raise KeyError("no such level")

    config = RolloutConfig(max_conversation_tokens=1000)
    trajectory = await Runner(ScriptedEngine([]), TOKENIZER, config, 0, "rollout-0", make).sample(REQUEST)
    assert trajectory.failure == "make_environment: KeyError: 'no such level'"


async def test_messages_that_the_chat_template_refuses_fail_the_trajectory() -> None:
    tokenizer = named("llama2")  # turns have to alternate
    echo = misbehaving(step=returning(Observation(({"role": "assistant", "content": "I?"},))))
    config = RolloutConfig(max_conversation_tokens=1000)
    trajectory = await Runner(ScriptedEngine(["a"]), tokenizer, config, 0, "rollout-0", lambda _: echo).sample(REQUEST)
    assert "the chat template refuses its messages" in trajectory.failure


async def test_a_close_that_fails_costs_nothing() -> None:
    for method in (raising(RuntimeError("gone")), hang):
        echo = misbehaving(close=method)
        trajectory = await runner(ScriptedEngine(["a"] * 3), echo, environment_timeout_s=0.1).sample(REQUEST)
        assert (trajectory.failure, trajectory.num_turns) == ("", 3)


async def test_the_learner_sees_neither_texts_nor_the_outcome() -> None:
    trajectory = await runner(ScriptedEngine(["a"] * 3), Echo()).sample(REQUEST)
    seen = trajectory.for_learner()
    assert type(seen) is TokenTrajectory  # which has no field for either, see tests/test_records.py
    assert (seen.token_ids, seen.num_turns) == (trajectory.token_ids, 3)
