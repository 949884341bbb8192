"""The pool on fake actors (who gets what, who is blamed) and on real ones (hangs, deaths)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError

import actors.pools.reward_pool
from actors.faults import WorkersKeepDying
from actors.pools.reward_pool import RewardPool
from actors.recovery import RecoveryConfig
from actors.workers.reward_worker import RewardWorker
from rollout.component import ComponentSpec, UserError
from rollout.config import RewardConfig
from rollout.rewards.errors import RewardErrorKind
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.trajectory import FinishReason, Prompt, Trajectory

REPOSITORY = Path(__file__).resolve().parents[3]


def case(name: str) -> tuple[Prompt, Trajectory]:
    trajectory = Trajectory(
        prompt_id=name,
        sample_index=3,
        token_ids=(1, 2),
        action_mask=(False, True),
        rollout_logprobs=(0.0, -1.0),
        response_text=name,
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )
    return Prompt(prompt_id=name, messages=(), token_ids=(1,), reference=None, task="t"), trajectory


class FakeMethod:
    """What Ray puts in a method's place."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function


class FakeActor:
    """Takes 10 ms a trajectory. One named ``hang`` blocks it for ever, ``die`` ends it, ``timeout`` wears it out."""

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.seen: list[str] = []
        self.num_open = self.max_open = 0
        self.killed = asyncio.Event()
        self.blocked = self.worn_out = self.broken = False
        self.hung_at, self.company = 0.0, 0
        for name in ("ready", "is_worn_out", "score", "clean_score"):
            setattr(self, name, FakeMethod(getattr(self, f"_{name}")))

    async def _ready(self) -> None:
        if self.broken:
            raise RayActorError(error_msg="no such module")

    async def _is_worn_out(self) -> bool:
        return self.worn_out

    async def _score(self, prompt: Prompt, trajectory: Trajectory) -> RewardRecord:
        name = trajectory.prompt_id
        self.seen.append(name)
        self.num_open += 1
        self.max_open = max(self.max_open, self.num_open)
        if name == "hang":
            self.blocked, self.hung_at, self.company = True, time.monotonic(), self.num_open - 1
        if name == "die":
            self.killed.set()
        waits = 3600 if self.blocked else 0.01
        try:
            await asyncio.wait_for(self.killed.wait(), waits)
        except TimeoutError:
            if name == "timeout":
                self.worn_out = True
                kind = RewardErrorKind.INFRASTRUCTURE
                return RewardRecord(
                    prompt_id=name, sample_index=3, outcome=RewardOutcome.ERROR, error="no score", error_kind=kind
                )
            return RewardRecord(prompt_id=name, sample_index=3, observed=1.0, clean=1.0, outcome=RewardOutcome.SCORED)
        finally:
            self.num_open -= 1
        raise RayActorError(error_msg="killed")

    _clean_score = _score


class Fakes:
    """A pool on fake actors."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        limit: int = 8,
        is_replacing: bool = True,
        recovery: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        monkeypatch.setattr("ray.kill", lambda actor, no_restart: actor.killed.set())
        self.actors = [FakeActor(index) for index in range(number)]
        self.broken_replacements = False
        self.pool = RewardPool(
            list(self.actors),
            self.create if is_replacing else None,
            timeout_s=0.1,
            max_requests_per_worker=limit,
            recovery=RecoveryConfig.model_validate({"reward_grace_s": 0.1, **(recovery or {})}),
            **options,
        )

    def create(self, index: int) -> FakeActor:
        self.actors.append(FakeActor(index))
        self.actors[-1].broken = self.broken_replacements
        return self.actors[-1]

    async def score(self, *names: str) -> dict[str, RewardRecord]:
        async with asyncio.timeout(20):
            records = await asyncio.gather(*(self.pool.score(*case(name)) for name in names))
        return {record.prompt_id: record for record in records}


async def test_work_is_spread_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch, 3, limit=4)
    records = await fakes.score(*map(str, range(40)))
    assert all(record.outcome is RewardOutcome.SCORED for record in records.values())
    assert [actor.max_open for actor in fakes.actors] == [4, 4, 4]
    assert sorted(name for actor in fakes.actors for name in actor.seen) == sorted(map(str, range(40)))


@pytest.mark.parametrize("number", [1, 3])
async def test_only_the_trajectory_that_hangs_twice_is_blamed(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fakes = Fakes(monkeypatch, number)
    names = [str(index) for index in range(30)]
    records = await fakes.score(*names[:5], "hang", *names[5:])
    hung = records.pop("hang")
    assert hung.outcome is RewardOutcome.ERROR and hung.error_kind is RewardErrorKind.INFRASTRUCTURE
    assert hung.error == "no score within 0.2 s (twice)"
    assert (hung.sample_index, hung.observed) == (3, None)
    assert all(record.outcome is RewardOutcome.SCORED for record in records.values())
    assert fakes.pool.num_replaced == 2
    first, second = sorted((a for a in fakes.actors if a.blocked), key=lambda actor: actor.hung_at)
    assert first.company > 0, "it does not hang alone at first"
    assert second.company == 0 and second.seen[-1] == "hang", "the second time it is alone"
    metrics = fakes.pool.take_metrics()
    assert (metrics["reward/num_scored"], metrics["reward/num_errors"]) == (30, 1)
    assert metrics["reward/num_replaced_workers"] == 2
    assert set(fakes.pool.take_metrics().values()) == {0.0}


async def test_a_dead_worker_is_replaced_and_its_work_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch, 2)
    scoring = asyncio.create_task(fakes.score(*map(str, range(12))))
    while not fakes.actors[0].num_open:
        await asyncio.sleep(0)
    fakes.actors[0].killed.set()
    assert all(record.outcome is RewardOutcome.SCORED for record in (await scoring).values())
    assert (fakes.pool.num_replaced, fakes.actors[2].index) == (1, 0)


async def test_what_always_kills_its_worker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch, 2, error_reward=-1.0)
    records = await fakes.score("1", "die", "2")
    assert records["die"].error.startswith("the reward worker's process died: ")
    assert (records["die"].observed, records["die"].clean) == (-1.0, None)
    assert records["1"].observed == records["2"].observed == 1.0
    assert fakes.pool.num_replaced == 3
    assert (await fakes.pool.clean_score(*case("die"))).observed is None


async def test_a_worn_out_worker_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch, 1)
    records = await fakes.score("timeout")
    assert records["timeout"].error == "no score"
    assert fakes.pool.num_replaced == 1 and fakes.actors[0].killed.is_set()


async def test_workers_that_cannot_be_started_are_errors_not_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch, 1)
    fakes.actors[0].broken = fakes.broken_replacements = True
    records = await fakes.score("1", "2")
    for record in records.values():
        assert record.outcome is RewardOutcome.ERROR
        assert "a reward worker could not be started: " in record.error and "no such module" in record.error


async def test_workers_that_never_start_end_the_run_with_the_last_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch, 2, recovery={"max_worker_losses": 3})
    for actor in fakes.actors:
        actor.broken = True
    fakes.broken_replacements = True
    results = await asyncio.wait_for(
        asyncio.gather(*(fakes.pool.score(*case(str(i))) for i in range(40)), return_exceptions=True), 20
    )
    ends = [str(result) for result in results if isinstance(result, WorkersKeepDying)]
    cause = "a reward worker could not be started: its process died: no such module; reward-0 was lost 4 times"
    assert ends and all(text.startswith(cause) for text in ends)
    assert "(recovery.max_worker_losses allows 3)" in ends[0]
    records = [result for result in results if isinstance(result, RewardRecord)]
    assert len(ends) + len(records) == 40 and len(records) <= 2, "three losses make an error of a trajectory"
    assert len(fakes.actors) <= 2 * (1 + 3)
    with pytest.raises(WorkersKeepDying):  # evaluation ends as well
        await fakes.pool.clean_score(*case("late"))


async def test_losses_are_in_a_row_only_while_nothing_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch, 1, recovery={"max_worker_losses": 3})
    for index in range(4):
        records = await fakes.score("die", str(index))
        assert records["die"].outcome is RewardOutcome.ERROR and records[str(index)].outcome is RewardOutcome.SCORED
    assert fakes.pool.num_replaced == 12


async def test_the_limits_of_one_trajectory_are_options(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch, 1, recovery={"max_reward_losses": 1})
    assert (await fakes.score("die"))["die"].num_retries == 0
    fakes = Fakes(monkeypatch, 1, recovery={"max_reward_losses": 5, "max_reward_hangs": 3})
    assert (await fakes.score("hang"))["hang"].error == "no score within 0.2 s (3 times)"


async def test_without_replacements_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch, 2, is_replacing=False)
    fakes.actors[0].killed.set()
    records = await fakes.score("1", "2", "3")
    assert all(record.outcome is RewardOutcome.SCORED for record in records.values())
    fakes.actors[1].killed.set()
    (record,) = (await fakes.score("4")).values()
    assert record.outcome is RewardOutcome.ERROR and "no reward worker is left" in record.error


async def test_a_cancelled_request_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch, 1, limit=1)
    task = asyncio.create_task(fakes.pool.score(*case("1")))
    await asyncio.sleep(0.002)
    waiting = asyncio.create_task(fakes.pool.score(*case("2")))
    await asyncio.sleep(0.002)
    for one in (waiting, task):
        one.cancel()
    await asyncio.gather(task, waiting, return_exceptions=True)
    assert (await fakes.score("3"))["3"].outcome is RewardOutcome.SCORED


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    ("kind", "mistake"),
    [
        (
            "no_such_rewards:score",
            "reward.functions.0.type: cannot import module 'no_such_rewards': ModuleNotFoundError",
        ),
        (
            "rewards_for_workers:Raises",
            "reward.functions.0: OSError: no such judge (raised while 'rewards_for_workers:Rai",
        ),
        (
            "rewards_for_workers:Exits",
            "reward.functions.0: SystemExit: 3 (raised while 'rewards_for_workers:Exits' was",
        ),
    ],
)
def test_a_reward_that_no_worker_can_make_ends_the_run_with_the_mistake_and_no_other_worker(
    kind: str, mistake: str, ray_local: None, tmp_path: Path
) -> None:
    import ray

    config = RewardConfig(functions=(ComponentSpec(type=kind),), timeout_s=2.0)
    made: list[Any] = []
    (tmp_path / "rewards_for_workers.py").write_text(
        "import sys\nfrom rollout.rewards.base import Reward\n"
        "class Raises(Reward):\n    def __init__(self, config):\n        raise OSError('no such judge')\n"
        "    async def __call__(self, prompt, trajectory): ...\n"
        "class Exits(Raises):\n    def __init__(self, config):\n        sys.exit(3)\n"
    )
    environment = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)])}

    def create(index: int) -> Any:
        actor = ray.remote(RewardWorker).options(
            num_cpus=0, max_concurrency=1000, runtime_env={"env_vars": environment}
        )
        made.append(actor.remote(config, 0))
        return made[-1]

    async def score_all() -> list[Any]:
        pool = RewardPool([create(0)], create, config.deadline_s)
        return await asyncio.gather(*(pool.score(*case(str(i))) for i in range(5)), return_exceptions=True)

    results = asyncio.run(score_all())
    assert len(made) == 1, "another worker would make the same mistake"
    assert {type(result) for result in results} == {UserError}
    assert all(str(result).startswith(mistake) for result in results), results


REWARD = """
import os, time

def score(prompt, trajectory, folder):
    return 1.0

async def blocks(prompt, trajectory, folder):
    if trajectory.response_text == "hang":
        time.sleep(1e9)
    if trajectory.response_text == "die" and not os.path.exists(folder + "/died"):
        open(folder + "/died", "w").close()
        os._exit(1)
    if trajectory.response_text == "nan":
        return float("nan")
    return 1.0
"""


@pytest.mark.slow
@pytest.mark.ray
def test_real_actors_that_hang_and_die(ray_local: None, tmp_path: Any) -> None:
    import ray

    (tmp_path / "rewards_of_pool_test.py").write_text(REWARD)
    spec = ComponentSpec(type="rewards_of_pool_test:blocks", folder=str(tmp_path))
    config = RewardConfig(functions=(spec,), timeout_s=2.0, max_retries=0)
    source = actors.pools.reward_pool.__file__.rpartition("/actors/")[0]
    environment = {"env_vars": {"PYTHONPATH": f"{tmp_path}:{source}"}}
    made: list[Any] = []

    def create(index: int) -> Any:
        actor = ray.remote(RewardWorker).options(num_cpus=0, max_concurrency=1000, runtime_env=environment)
        made.append(actor.remote(config, 0))
        return made[-1]

    async def score_all() -> tuple[dict[str, RewardRecord], float, int]:
        recovery = RecoveryConfig(reward_grace_s=3.0)
        pool = RewardPool([create(0), create(1)], create, config.deadline_s, recovery=recovery)
        names = [*map(str, range(20)), "hang", "nan", "die", *map(str, range(20, 40))]
        await asyncio.gather(*(pool.score(*case(f"warm{index}")) for index in range(4)))
        began = time.monotonic()
        # a reference, as the controller has it
        records = await asyncio.gather(*(pool.score(case(name)[0], ray.put(case(name)[1])) for name in names))
        return {record.prompt_id: record for record in records}, time.monotonic() - began, pool.num_replaced

    try:
        records, seconds, replaced = asyncio.run(score_all())
    finally:
        for actor in made:
            ray.kill(actor)
    # its first call may have been lost together with the worker that died
    assert "no score within 5 s" in records.pop("hang").error
    assert records.pop("nan").error_kind is RewardErrorKind.INVALID
    assert {record.outcome for record in records.values()} == {RewardOutcome.SCORED}, records
    # one died, one or two hung; where starting takes longer than the deadline, a replacement is replaced as well
    assert 2 <= replaced <= 6
    assert seconds < 90
