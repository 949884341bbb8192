"""One reward function that fails, hangs or lies: outcomes, retries, threads, cache."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx2
import numpy as np
import pytest
import requests

from rollout.config import RewardConfig, longest_pause_s
from rollout.rewards.base import Abstain, InvalidScore, RewardUnavailable
from rollout.rewards.errors import RewardErrorKind, error_kind
from rollout.rewards.function import FunctionReward
from rollout.scoring import caller as reward_caller
from rollout.scoring.caller import GuardedReward, Part
from rollout.scoring.threads import RewardThreads
from rollout.trajectory import FinishReason, Prompt, Trajectory

INFRASTRUCTURE, INVALID, CODE = RewardErrorKind.INFRASTRUCTURE, RewardErrorKind.INVALID, RewardErrorKind.CODE


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses before retries last a hundredth."""
    monkeypatch.setattr(reward_caller, "longest_pause_s", lambda retry: longest_pause_s(retry) / 100)


def prompt(name: str = "p") -> Prompt:
    return Prompt(prompt_id=name, messages=(), token_ids=(1,), reference="r", task="t")


def response(text: str = "x", name: str = "p", index: int = 0) -> Trajectory:
    return Trajectory(
        prompt_id=name,
        sample_index=index,
        token_ids=(1, 2),
        action_mask=(False, True),
        rollout_logprobs=(0.0, -1.0),
        response_text=text,
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )


def caller_of(
    function: Callable[..., Any], threads: RewardThreads | None = None, run_seed: int = 0, **options: Any
) -> GuardedReward:
    reward_options = {key: options.pop(key) for key in ("score_range", "weight") if key in options}
    reward = FunctionReward(FunctionReward.Config(**reward_options), function)
    config = RewardConfig(**{"timeout_s": 5.0, **options})
    return GuardedReward("mine", reward, config, run_seed, threads or RewardThreads())


def script(*steps: Any) -> Callable[..., Awaitable[float]]:
    """An async reward that does the next step on each call: raises it, or returns it."""
    rest: Iterator[Any] = iter(steps)

    async def reward(prompt: Prompt, trajectory: Trajectory) -> float:
        step = next(rest)
        if isinstance(step, BaseException):
            raise step
        return step  # type: ignore[no-any-return]

    return reward


def http_error(status: int) -> requests.HTTPError:
    answer = requests.Response()
    answer.status_code = status
    return requests.HTTPError("refused", response=answer)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError("gone"), INFRASTRUCTURE),
        (TimeoutError(), INFRASTRUCTURE),
        (OSError(28, "No space left on device"), INFRASTRUCTURE),
        (RewardUnavailable("warming up"), INFRASTRUCTURE),
        (http_error(500), INFRASTRUCTURE),
        (http_error(429), INFRASTRUCTURE),
        (http_error(404), CODE),
        (requests.ConnectionError("refused"), INFRASTRUCTURE),
        (httpx2.ReadTimeout("slow"), INFRASTRUCTURE),
        (aiohttp.ServerDisconnectedError(), INFRASTRUCTURE),
        (aiohttp.ClientResponseError(SimpleNamespace(real_url="u"), (), status=503), INFRASTRUCTURE),  # type: ignore[arg-type]
        (aiohttp.ClientResponseError(SimpleNamespace(real_url="u"), (), status=401), CODE),  # type: ignore[arg-type]
        (InvalidScore("x"), INVALID),
        (KeyError("no such thing"), CODE),
        (ValueError("bad"), CODE),
        (AssertionError(), CODE),
    ],
)
def test_whose_fault_an_exception_is(error: Exception, kind: RewardErrorKind) -> None:
    assert error_kind(error) is kind


async def test_infrastructure_errors_are_called_again_and_others_are_not() -> None:
    part = await caller_of(script(ConnectionError("a"), TimeoutError("b"), 0.5))(prompt(), response())
    assert part == Part(score=0.5, num_retries=2)
    part = await caller_of(script(*[ConnectionError("down")] * 3))(prompt(), response())
    assert part == Part(error="ConnectionError: down", error_kind=INFRASTRUCTURE, num_retries=2)
    part = await caller_of(script(ConnectionError("down"), 1.0), max_retries=0)(prompt(), response())
    assert part == Part(error="ConnectionError: down", error_kind=INFRASTRUCTURE)
    part = await caller_of(script(KeyError("k"), 1.0))(prompt(), response())
    assert part == Part(error="KeyError: 'k'", error_kind=CODE)
    part = await caller_of(script(ConnectionError("a"), KeyError("k"), 1.0))(prompt(), response())
    assert part == Part(error="KeyError: 'k'", error_kind=CODE, num_retries=1)


@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None, True, [1.0, 2.0], np.array([1.0, 2.0]), 1j])
async def test_what_is_no_number_is_invalid_and_not_called_again(value: Any) -> None:
    part = await caller_of(script(value, 1.0))(prompt(), response())
    assert (part.score, part.error_kind, part.num_retries) == (None, INVALID, 0)
    assert "reward 'mine' returned " in part.error and "not a finite number" in part.error


async def test_a_score_outside_the_declared_range_is_invalid() -> None:
    for value, valid in ((0.0, True), (1, True), (1.0001, False), (-1e-9, False)):
        part = await caller_of(script(value), score_range=(0.0, 1.0))(prompt(), response())
        assert (part.score == value) is valid
        assert valid or (part.error_kind is INVALID and "outside its score_range [0, 1]" in part.error)
    assert (await caller_of(script(np.float32(0.5)))(prompt(), response())).score == 0.5


async def test_an_abstention_is_no_error() -> None:
    part = await caller_of(script(Abstain("no test covers it"), 1.0))(prompt(), response())
    assert part == Part(abstained="no test covers it")


async def test_a_slow_call_is_given_up_and_called_again() -> None:
    calls = 0

    async def slow_once(prompt: Prompt, trajectory: Trajectory) -> float:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.sleep(60)
        return 1.0

    assert await caller_of(slow_once, timeout_s=0.1)(prompt(), response()) == Part(score=1.0, num_retries=1)

    async def stubborn(prompt: Prompt, trajectory: Trajectory) -> float:
        while not stop.is_set():  # refuses to be cancelled
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue
        return 1.0

    stop = threading.Event()
    part = await caller_of(stubborn, timeout_s=0.1, max_retries=1)(prompt(), response())
    assert part == Part(error="no score within 0.1 s", error_kind=INFRASTRUCTURE, num_retries=1)
    stop.set()
    await asyncio.sleep(0.1)


async def test_a_plain_function_blocks_nobody_and_its_hung_threads_are_counted() -> None:
    threads, release = RewardThreads(), threading.Event()

    def blocking(prompt: Prompt, trajectory: Trajectory) -> float:
        if trajectory.response_text == "hang":
            release.wait(60)
        return 1.0

    call = caller_of(blocking, threads, timeout_s=0.3, max_retries=1)
    hung = asyncio.create_task(call(prompt(), response("hang")))
    began = time.monotonic()
    good = await asyncio.gather(*(call(prompt(), response(f"{i}", index=i)) for i in range(50)))
    assert [part.score for part in good] == [1.0] * 50
    assert time.monotonic() - began < 0.3 and not hung.done()
    assert await hung == Part(error="no score within 0.3 s", error_kind=INFRASTRUCTURE, num_retries=1)
    assert threads.num_given_up == 2
    release.set()
    deadline = time.monotonic() + 5
    while threads.num_given_up and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert threads.num_given_up == 0


async def test_a_reward_cannot_end_the_worker() -> None:
    def leaves(prompt: Prompt, trajectory: Trajectory) -> float:
        raise SystemExit(3)

    async def leaves_too(prompt: Prompt, trajectory: Trajectory) -> float:
        raise SystemExit(3)

    def stops(prompt: Prompt, trajectory: Trajectory) -> float:
        raise StopIteration

    for function in (leaves, leaves_too):
        part = await caller_of(function)(prompt(), response())
        assert part == Part(error="RuntimeError: the reward raised SystemExit(3)", error_kind=CODE)
    assert (await caller_of(stops)(prompt(), response())).error_kind is CODE


async def test_a_pause_that_the_server_asks_for_is_kept_within_the_deadline() -> None:
    began = time.monotonic()
    part = await caller_of(script(RewardUnavailable("busy", 0.2), 1.0))(prompt(), response())
    assert part.score == 1.0 and time.monotonic() - began >= 0.2
    part = await caller_of(script(RewardUnavailable("busy", 3600.0), 1.0))(prompt(), response())
    assert part == Part(error="busy", error_kind=INFRASTRUCTURE)  # an hour is beyond the deadline


def test_the_deadline_covers_all_attempts_and_pauses() -> None:
    assert RewardConfig(timeout_s=30, max_retries=0).deadline_s == 30
    assert RewardConfig(timeout_s=30, max_retries=2).deadline_s == 90 + 0.5 + 1
    assert [longest_pause_s(retry) for retry in range(6)] == [0.5, 1, 2, 4, 8, 10]


async def test_a_deterministic_reward_is_called_once_for_each_text() -> None:
    called: list[tuple[str, str]] = []

    async def counted(prompt: Prompt, trajectory: Trajectory) -> float:
        called.append((prompt.prompt_id, trajectory.response_text))
        if trajectory.response_text == "bad":
            raise KeyError
        return float(len(called))

    call = caller_of(counted)
    call.reward.deterministic = True
    first = await call(prompt("a"), response("x"))
    assert first == Part(score=1.0)
    assert await call(prompt("a"), response("x", index=7)) == Part(score=1.0, cached=True)
    assert (await call(prompt("b"), response("x"))).score == 2.0
    assert (await call(prompt("a"), response("y"))).score == 3.0
    for _ in range(2):
        assert (await call(prompt("a"), response("bad"))).error_kind is CODE
    assert called == [("a", "x"), ("b", "x"), ("a", "y"), ("a", "bad"), ("a", "bad")]


async def test_the_cache_is_bounded_and_forgets_the_least_recently_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_caller, "CACHE_ENTRIES", 2)
    call = caller_of(script(*map(float, range(10))))
    call.reward.deterministic = True
    cached = [(await call(prompt(), response(text))).cached for text in ("a", "b", "a", "c", "a", "b")]
    assert cached == [False, False, True, False, True, False]
