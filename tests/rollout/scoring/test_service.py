"""The service: several rewards become one record."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rollout.component import ComponentSpec
from rollout.config import RewardConfig
from rollout.rewards.errors import RewardErrorKind
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.scoring.service import MAX_THREADS_GIVEN_UP, RewardService
from rollout.trajectory import FinishReason, Prompt, Trajectory

REWARDS = """
import threading
from rollout.rewards.base import Abstain, Reward, RewardUnavailable

release = threading.Event()

def length(prompt, trajectory):
    return len(trajectory.response_text)

async def constant(prompt, trajectory, value=1.0):
    return value

def picky(prompt, trajectory):
    raise Abstain("too short")

def broken(prompt, trajectory):
    raise KeyError("k")

def hangs(prompt, trajectory):
    release.wait(60)

class Plain(Reward):
    def __call__(self, prompt, trajectory):
        return float(threading.current_thread() is not threading.main_thread())

class Later:
    def __await__(self):
        yield from ()
        return 4.0

def awaitable(prompt, trajectory):
    return Later()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with rewards of the user's own."""
    name = f"rewards_{abs(hash(tmp_path))}"  # modules stay imported
    (tmp_path / f"{name}.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def service(*functions: dict[str, Any], **options: Any) -> RewardService:
    specs = tuple(ComponentSpec(**function) for function in functions)
    return RewardService(RewardConfig(functions=specs, **{"timeout_s": 5.0, "max_retries": 0, **options}), 0, 4)


async def score(service: RewardService, text: str = "four") -> RewardRecord:
    trajectory = Trajectory(
        prompt_id="p",
        sample_index=2,
        token_ids=(1, 2),
        action_mask=(False, True),
        rollout_logprobs=(0.0, -1.0),
        response_text=text,
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )
    return await service.score(Prompt(prompt_id="p", messages=(), token_ids=(1,), reference=None, task="t"), trajectory)


async def test_functions_and_classes_of_the_users_own(module: str) -> None:
    functions = (
        {"type": f"{module}:length", "weight": 0.5},
        {"type": f"{module}:constant", "value": 3.0},
        {"type": f"{module}:Plain"},
        {"type": f"{module}:awaitable"},
    )
    record = await score(service(*functions))
    assert record.parts == {
        f"{module}:length": 4.0,
        f"{module}:constant": 3.0,
        f"{module}:Plain": 1.0,
        f"{module}:awaitable": 4.0,
    }
    assert (record.clean, record.observed, record.outcome) == (10.0, 10.0, RewardOutcome.SCORED)
    assert (record.prompt_id, record.sample_index, record.error, record.error_kind) == ("p", 2, "", None)


async def test_an_abstention_leaves_the_trajectory_out_whatever_the_others_say(module: str) -> None:
    picky = service({"type": f"{module}:length"}, {"type": f"{module}:picky"}, error_reward=-1.0)
    record = await score(picky)
    assert (record.outcome, record.error) == (RewardOutcome.ABSTAINED, "too short")
    assert (record.observed, record.clean, record.error_kind) == (None, None, None)
    assert record.parts == {f"{module}:length": 4.0}


@pytest.mark.parametrize(("error_reward", "observed"), [("drop", None), (-1.0, -1.0)])
async def test_a_failure_comes_before_an_abstention(module: str, error_reward: Any, observed: float | None) -> None:
    functions = [{"type": f"{module}:{name}"} for name in ("picky", "length", "broken")]
    record = await score(service(*functions, error_reward=error_reward))
    assert (record.outcome, record.error_kind) == (RewardOutcome.ERROR, RewardErrorKind.CODE)
    assert (record.observed, record.clean, record.error) == (observed, None, "KeyError: 'k'")


async def test_noise_sees_scores_only(module: str) -> None:
    noise = (ComponentSpec(type="gaussian", sigma=1.0),)
    assert (await score(service({"type": f"{module}:broken"}, noise=noise))).observed is None
    assert (await score(service({"type": f"{module}:picky"}, noise=noise))).observed is None
    record = await score(service({"type": f"{module}:length"}, noise=noise))
    assert record.corrupted and record.clean == 4.0 != record.observed


async def test_retries_do_not_change_scores_or_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"flaky_{abs(hash(tmp_path))}"
    code = "calls = 0\ndef score(prompt, trajectory, failures):\n    global calls\n    calls += 1\n"
    code += "    if calls <= failures:\n        raise ConnectionError\n    return 1.0\n"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    noise = (ComponentSpec(type="gaussian", sigma=1.0),)
    failing = await score(service({"type": f"{name}:score", "failures": 1}, noise=noise, max_retries=1))
    calm = await score(service({"type": f"{name}:score", "failures": 0}, noise=noise))
    assert failing.observed == calm.observed
    assert (failing.num_retries, calm.num_retries) == (1, 0)


async def test_a_process_with_many_hung_threads_is_worn_out(module: str) -> None:
    import importlib

    release: threading.Event = importlib.import_module(module).release
    worker = service({"type": f"{module}:hangs"}, timeout_s=0.1)
    await asyncio.gather(*(score(worker) for _ in range(MAX_THREADS_GIVEN_UP)))
    assert not await worker.is_worn_out()
    record = await score(worker)
    assert record.error == "no score within 0.1 s"
    assert await worker.is_worn_out()
    release.set()
    deadline = time.monotonic() + 5
    while await worker.is_worn_out() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert not await worker.is_worn_out()


async def test_gold_tells_the_clean_score_and_training_never_sees_it(module: str) -> None:
    gold = (ComponentSpec(type=f"{module}:constant", value=7.0),)
    noise = (ComponentSpec(type="gaussian", sigma=1.0),)
    judged = service({"type": f"{module}:length"}, gold=gold, noise=noise)
    record = await score(judged)
    assert record.clean == 7.0 and record.parts == {f"{module}:length": 4.0}
    assert (
        record.corrupted
        and record.observed == (await score(service({"type": f"{module}:length"}, noise=noise))).observed
    )
    trajectory = Trajectory(
        prompt_id="p",
        sample_index=2,
        token_ids=(1, 2),
        action_mask=(False, True),
        rollout_logprobs=(0.0, -1.0),
        response_text="four",
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )
    clean = await judged.clean_score(
        Prompt(prompt_id="p", messages=(), token_ids=(1,), reference=None, task="t"), trajectory
    )
    assert (clean.clean, clean.parts) == (7.0, {f"{module}:constant": 7.0})


async def test_gold_that_fails_costs_the_clean_score_only(module: str) -> None:
    record = await score(service({"type": f"{module}:length"}, gold=(ComponentSpec(type=f"{module}:broken"),)))
    assert (record.outcome, record.observed, record.clean) == (RewardOutcome.SCORED, 4.0, None)
    assert record.gold_error == "KeyError: 'k'"
    assert record.error_kind is None


async def test_gold_knows_the_truth_of_what_the_reward_failed_on(module: str) -> None:
    gold = (ComponentSpec(type=f"{module}:constant"),)
    record = await score(service({"type": f"{module}:broken"}, gold=gold, error_reward=-1.0))
    assert (record.outcome, record.observed, record.clean, record.gold_error) == (RewardOutcome.ERROR, -1.0, 1.0, "")
