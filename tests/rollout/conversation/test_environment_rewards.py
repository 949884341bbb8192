"""What rewards make of a conversation: its outcome as a score, what a server is sent, and what is remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rollout.component import ComponentSpec
from rollout.config import RewardConfig
from rollout.rewards.base import Reward
from rollout.rewards.errors import RewardErrorKind
from rollout.rewards.function import build_reward
from rollout.rewards.outcome import OutcomeReward
from rollout.rewards.remote import _sample
from rollout.scoring.caller import GuardedReward
from rollout.scoring.threads import RewardThreads
from rollout.tasks.chain import Chain
from rollout.tasks.environments import environment_maker
from rollout.trajectory import FinishReason, Message, Outcome, Prompt, Trajectory

PROMPT = Prompt(prompt_id="p", messages=({"role": "user", "content": "1-9"},), token_ids=(1,), reference=None, task="t")
SAID: tuple[Message, ...] = ({"role": "assistant", "content": "5"}, {"role": "user", "content": "="})


def played(outcome: Outcome | None, messages: tuple[Message, ...] = SAID) -> Trajectory:
    said = messages if outcome is not None else ()
    return Trajectory(
        prompt_id="p",
        sample_index=0,
        token_ids=(1, 2),
        action_mask=(False, True),
        rollout_logprobs=(0.0, -1.0),
        response_text="5",
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
        messages=said,
        outcome=outcome,
    )


def caller_of(reward: Reward) -> GuardedReward:
    return GuardedReward("mine", reward, RewardConfig(timeout_s=5.0), 0, RewardThreads())


async def test_the_outcome_is_the_score() -> None:
    spec = ComponentSpec(type="outcome", metrics={"found": 1.0, "guesses": -0.1})
    reward = build_reward(spec, "reward.functions.0")
    assert isinstance(reward, OutcomeReward)
    score = await reward(PROMPT, played(Outcome({"found": 1.0, "guesses": 3.0, "other": 9.0})))
    assert score == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome({"fuond": 1.0}), "the outcome has no metric 'found'; did you mean 'fuond'?"),
        (None, "prompt 'p' has no environment, so its trajectories have no outcome"),
    ],
)
async def test_an_outcome_that_is_not_there_is_an_error_of_the_code(outcome: Outcome | None, text: str) -> None:
    part = await caller_of(OutcomeReward(OutcomeReward.Config(metrics={"found": 1.0})))(PROMPT, played(outcome))
    assert part.error_kind is RewardErrorKind.CODE and text in part.error


async def test_the_same_text_in_another_conversation_is_scored_anew() -> None:
    class Remembered(Reward):
        deterministic = True

        async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
            return float(len(trajectory.messages[-1]["content"]))

    caller = caller_of(Remembered(Remembered.Config()))
    other: tuple[Message, ...] = (SAID[0], {"role": "user", "content": "no more"})
    trajectories = [played(Outcome({"a": 1.0})), played(Outcome({"a": 2.0})), played(Outcome({"a": 1.0}), other)]
    parts = [await caller(PROMPT, trajectory) for trajectory in [*trajectories, *trajectories]]
    assert [part.score for part in parts] == [1.0, 1.0, 7.0] * 2
    assert [part.cached for part in parts] == [False] * 3 + [True] * 3


def test_a_server_is_sent_the_conversation() -> None:
    sent = json.loads(json.dumps(_sample(PROMPT, played(Outcome({"found": 1.0}, {"number": 5})))))
    assert sent["messages"] == [{"role": "user", "content": "1-9"}]
    assert sent["conversation"] == list(SAID)
    assert sent["outcome"] == {"metrics": {"found": 1.0}, "facts": {"number": 5}}
    assert not {"conversation", "outcome"} & _sample(PROMPT, played(None)).keys()


def test_a_task_without_environments_is_not_built_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chain, "__init__", lambda *_: pytest.fail("it was built"))
    assert environment_maker(ComponentSpec(type="chain")) is None


async def test_the_example_plays_by_its_rules(tmp_path: Path) -> None:
    """Every game gets an object of its own, and the number that its seed gives."""
    game = {"type": "examples.guess_number:GuessNumber", "max_guesses": 3}
    files = {"train": "no.jsonl", "eval": {"test": "no.jsonl"}}
    make = environment_maker(ComponentSpec(type="dataset", environment=game, **files))
    assert make is not None
    environment, other = make(PROMPT), make(PROMPT)
    assert environment is not None and other is not None and environment is not other
    assert await environment.reset(PROMPT, 4) == await other.reset(PROMPT, 4) == ()
    number = other.number  # type: ignore[attr-defined]
    replies = [await environment.step(text) for text in ("what", str(number - 1), f" {number}\n")]
    assert [(reply.messages[0]["content"], reply.done) for reply in replies] == [
        ("~", False),
        ("+", False),
        ("=", True),
    ]
    assert environment.outcome() == Outcome({"found": 1.0, "guesses": 3.0, "valid": 2 / 3}, {"number": number})
    replies = [await other.step(text) for text in (str(number + 1), "0", "-1")]
    assert [(reply.messages[0]["content"], reply.done) for reply in replies] == [
        ("-", False),
        ("+", False),
        ("~", True),
    ]
    assert other.outcome().metrics["found"] == 0.0
