"""The loop on fakes: order of versions, data that reach the learner, resuming, stopping, failing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.faults import DataLost, GuardStop, Quarantined, RollbackRequested, TooManyRewardErrors
from actors.groups import Group
from actors.guards.guards import GuardFinding
from actors.guards.trust import RewardTrust
from actors.guards.trust_config import TrustConfig
from actors.ledger.account import read_account
from actors.ledger.errors import TakenOver
from actors.ledger.fence import take_over
from actors.ledger.file import open_for_reading
from actors.ledger.ledger import Ledger
from actors.loop.activity import ActivityClock
from actors.loop.config import TrainingConfig
from actors.loop.controller import Controller
from actors.loop.generation import FailureLimits, Generation
from actors.loop.gold_labels import DisputedLabels
from actors.loop.group_buffer import GroupBuffer
from actors.loop.pseudo_labels import PseudoLabels
from actors.loop.records import Records
from actors.pools.weight_sync import SyncReport
from actors.recording.disk_space import DiskSpace
from actors.recording.journal import Journal
from actors.recording.run_status import RunStatus
from actors.recording.trajectory_log import TrajectoryLog
from learner.metrics import Last
from learner.update.result import UpdateResult
from rollout.data.prompt_source import PromptSource
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.trajectory import FinishReason, Prompt, SampleRequest, Trajectory, TrajectorySummary


class FakePool:
    """Engines that answer in an order of their own and know which weights they hold."""

    num_replaced = 0

    def __init__(self, poisonous: Sequence[str] = ()) -> None:
        self.version = -1
        self.requests: list[str] = []
        self.poisonous = poisonous

    async def sample(self, request: SampleRequest) -> tuple[TrajectorySummary, Any]:
        version = self.version
        if request.prompt.prompt_id in self.poisonous:
            raise Quarantined("quarantined: it kills workers")
        self.requests.append(request.trajectory_id)
        for _ in range(1 + hash(request.trajectory_id) % 7):
            await asyncio.sleep(0)
        trajectory = trajectory_of(request, version)
        future: asyncio.Future[Trajectory] = asyncio.get_running_loop().create_future()
        future.set_result(trajectory)
        return TrajectorySummary.of(trajectory), future

    async def respond_greedily(self, request: SampleRequest) -> Trajectory:
        return trajectory_of(request, self.version)

    async def every(self, method: str, *arguments: Any) -> dict[str, Any]:
        assert method == "stats"
        names = ("generated_tokens", "prompt_tokens", "preemptions", "running", "waiting", "kv_cache_usage")
        return {"rollout-0": dict.fromkeys(names, 0.0)}


def trajectory_of(request: SampleRequest, version: int) -> Trajectory:
    ids, mask = (*request.prompt.token_ids, 7, 8), (False, False, True, True)
    logprobs = (0.0, 0.0, -1.0, -1.0)
    name = request.prompt.prompt_id
    return Trajectory(
        prompt_id=name,
        sample_index=request.sample_index,
        token_ids=ids,
        action_mask=mask,
        rollout_logprobs=logprobs,
        response_text="x",
        finish_reason=FinishReason.STOP,
        policy_version_min=version,
        policy_version_max=version,
    )


class FakeRewards:
    """Scores 1; fails on the prompts it is told to."""

    def __init__(self, failing: Sequence[str] = ()) -> None:
        self.failing = failing

    async def score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        index = (await trajectory).sample_index
        if prompt.prompt_id in self.failing:
            return RewardRecord(
                prompt_id=prompt.prompt_id, sample_index=index, outcome=RewardOutcome.ERROR, error="boom"
            )
        return RewardRecord(
            prompt_id=prompt.prompt_id, sample_index=index, observed=1.0, clean=1.0, outcome=RewardOutcome.SCORED
        )

    async def clean_score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        return RewardRecord(
            prompt_id=prompt.prompt_id, sample_index=0, observed=0.5, clean=0.5, outcome=RewardOutcome.SCORED
        )

    def take_metrics(self) -> dict[str, float]:
        return {}


class FakeLearner:
    """Remembers what it was given."""

    first = 0
    saving = save_is_written = False
    failures: tuple[BaseException, ...] = ()

    def __init__(self, skipping: Sequence[int] = ()) -> None:
        self.batches: list[list[Group]] = []
        self.saved: list[tuple[int, dict[str, Any]]] = []
        self.rates: list[tuple[float, float] | None] = []
        self.skipping = list(skipping)

    async def update(
        self, groups: Sequence[Group], step: int, rates: tuple[float, float] | None = None
    ) -> UpdateResult:
        self.rates.append(rates)
        assert step == len(self.batches) + self.first
        await asyncio.sleep(0)
        if step in self.skipping:
            self.skipping.remove(step)
            return UpdateResult({}, {}, "the gap is too large")
        self.batches.append(list(groups))
        return UpdateResult({"policy/loss": Last(0.0)}, {"policy": 0.25})

    async def begin_save(self, step: int, controller_state: dict[str, Any]) -> None:
        self.saved.append((step, controller_state))
        self.saving = self.save_is_written = True

    async def finish_save(self) -> str:
        if self.failures:
            failure, *rest = self.failures
            self.failures = tuple(rest)
            raise failure
        self.saving = self.save_is_written = False
        return f"step-{self.saved[-1][0]}"


class FakeGuards:
    """Finds what it is told to, by step."""

    def __init__(
        self, before: Mapping[int, GuardFinding] | None = None, after: Mapping[int, GuardFinding] | None = None
    ) -> None:
        self.before, self.after = dict(before or {}), dict(after or {})

    def before_update(self, rewards: Sequence[float], lengths: Sequence[int], step: int) -> list[GuardFinding]:
        return [self.before.pop(step)] if step in self.before else []

    def after_update(self, metrics: Mapping[str, float], step: int, notes: Sequence[str] = ()) -> list[GuardFinding]:
        return [self.after.pop(step)] if step in self.after else []

    def state(self) -> dict[str, Any]:
        return {}


def finding(action: Any) -> GuardFinding:
    return GuardFinding("reward", action, "it exploded", 9.0, 3.0, {})


class FakeSync:
    """Puts the version into the engines."""

    def __init__(self, pool: FakePool) -> None:
        self.pool = pool

    async def publish(self, version: int) -> SyncReport:
        self.pool.version = version
        return SyncReport(version, 0.0, 0.0)


class ListSink:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed = False

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows.append((step, dict(metrics)))

    def close(self) -> None:
        self.closed = True


class Run:
    """A controller with its fakes."""

    def __init__(
        self,
        tmp_path: Path,
        rewards: FakeRewards | None = None,
        step: int = 0,
        state: Any = None,
        guards: Any = None,
        learner: FakeLearner | None = None,
        pool: FakePool | None = None,
        labels: PseudoLabels | None = None,
        trust: RewardTrust | None = None,
        gold_labels: DisputedLabels | None = None,
        max_errors: float = 5.0,
        **options: Any,
    ) -> None:
        settings = {"num_steps": 4, "prompts_per_step": 3, "samples_per_prompt": 2, "num_eval_prompts": 2, **options}
        config = TrainingConfig(**settings)
        prompts = [Prompt(prompt_id=f"p{i}", messages=(), token_ids=(1, 2), reference="r", task="t") for i in range(5)]
        self.pool, self.learner, self.sink = pool or FakePool(), learner or FakeLearner(), ListSink()
        self.learner.first = step
        rewards = rewards or FakeRewards()
        buffer = GroupBuffer(config.prompts_per_step, config.max_staleness, config.num_steps, step)
        clock, journal, status = ActivityClock(), Journal(), RunStatus(None)
        self.ledger = Ledger(tmp_path / "ledger.sqlite", num_prompts=5, samples_per_prompt=config.samples_per_prompt)
        self.ledger.rollback(step)
        self.told: list[tuple[str, str]] = []
        disk = DiskSpace(5.0, lambda text: self.tell("disk", 0, text))
        log = TrajectoryLog(tmp_path / "trajectories", 2)
        records = Records(self.ledger, journal, self.tell, status, [self.sink], log, disk)
        shared: Any = {
            "buffer": buffer,
            "clock": clock,
            "pool": self.pool,
            "rewards": rewards,
            "records": records,
        }
        generation = Generation(
            source=PromptSource(prompts, 0),
            samples_per_prompt=config.samples_per_prompt,
            limits=FailureLimits(max_errors, 1e9, config.trajectories_per_step),
            run_seed=0,
            gold_share=0.0,
            labels=labels,
            partial_groups=config.partial_groups,
            **shared,
        )
        fakes: Any = {"learner": self.learner, "sync": FakeSync(self.pool), "guards": guards or FakeGuards()}
        self.journal = journal
        self.controller = Controller(
            config=config,
            step_timeout_s=10.0,
            generation=generation,
            trust=trust or RewardTrust(TrustConfig(), 0.0, 0),
            eval_prompts={"test": prompts[:2]},
            gold_labels=gold_labels,
            state=state,
            **shared,
            **fakes,
        )

    def tell(self, kind: str, step: int, text: str, level: str = "info", **details: Any) -> None:
        self.told.append((kind, text))

    @property
    def trained(self) -> list[str]:
        """Ids of all trajectories trained on, in order."""
        return [s.summary.trajectory_id for batch in self.learner.batches for g in batch for s in g.samples]


@pytest.mark.parametrize("max_staleness", [0, 1, 2])
async def test_every_trajectory_is_trained_on_once_and_within_the_bound(tmp_path: Path, max_staleness: int) -> None:
    run = Run(tmp_path, max_staleness=max_staleness)
    assert await run.controller.run() == "step-4"
    assert len(run.trained) == len(set(run.trained)) == 4 * 3 * 2
    assert sorted(run.trained) == sorted(run.pool.requests)
    for version, batch in enumerate(run.learner.batches):
        ages = [version - s.summary.policy_version_min for g in batch for s in g.samples]
        assert 0 <= min(ages) <= max(ages) <= max_staleness


async def test_one_row_of_metrics_a_step_with_evaluations_in_it(tmp_path: Path) -> None:
    run = Run(tmp_path, eval_every_steps=2, checkpoint_every_steps=3)
    await run.controller.run()
    assert [step for step, _ in run.sink.rows] == [0, 1, 2, 3, 4]
    evaluated = [step for step, row in run.sink.rows if "eval/test/accuracy" in row]
    assert evaluated == [0, 2, 4]
    assert run.controller.initial_accuracy == run.controller.final_accuracy == {"test": 0.5}
    assert [step for step, _ in run.learner.saved] == [3, 4]
    assert run.sink.closed
    assert len((tmp_path / "trajectories" / "step-4.jsonl").read_text().splitlines()) == 2
    trained = [row for _, row in run.sink.rows if "policy/loss" in row]
    assert [(row["policy/loss"], row["time/learner_policy_s"]) for row in trained] == [(0.0, 0.25)] * 4
    kinds = [(entry.kind, entry.step) for entry in await run.journal.read(0, 0.0)]
    assert kinds.count(("step", 3)) == 1


async def test_resume_trains_on_what_the_first_run_did_not(tmp_path: Path) -> None:
    first = Run(tmp_path, max_staleness=2, checkpoint_every_steps=2)
    await first.controller.run()
    step, state = first.learner.saved[0]
    before = [s.summary.trajectory_id for b in first.learner.batches[:step] for g in b for s in g.samples]
    first.ledger.close()
    second = Run(tmp_path, max_staleness=2, state=state, step=step)
    await second.controller.run()
    assert len(second.learner.batches) == 2
    assert sorted(before + second.trained) == sorted(first.trained)
    assert 0 not in [step for step, _ in second.sink.rows], "the starting accuracy is that of the first run"


async def test_a_stop_ends_with_a_checkpoint_of_the_last_step(tmp_path: Path) -> None:
    run = Run(tmp_path, num_steps=1000)
    running = asyncio.create_task(run.controller.run())
    while run.controller.step < 3:
        await asyncio.sleep(0)
    await run.controller.request_stop("SIGTERM")
    path = await running
    assert path == f"step-{run.controller.step}"
    assert run.learner.saved[-1][0] == run.controller.step == len(run.learner.batches) < 1000
    assert run.controller.final_accuracy == {}


async def test_a_controller_that_another_one_has_replaced_writes_nothing_more(tmp_path: Path) -> None:
    run = Run(tmp_path, num_steps=1000, checkpoint_every_steps=1)
    running = asyncio.create_task(run.controller.run())
    while run.controller.step < 3:
        await asyncio.sleep(0)
    rows = list(run.sink.rows)
    take_over(tmp_path / "ledger.sqlite")
    with pytest.raises(TakenOver):
        await running
    assert len(run.sink.rows) <= len(rows) + 1, "the row that was being written"
    assert run.controller.step <= 4
    with open_for_reading(tmp_path / "ledger.sqlite") as db:
        assert read_account(db).last_step == run.controller.step


async def test_prompts_without_a_score_are_replaced_and_told(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeRewards(failing=["p1"]), num_steps=2)
    await run.controller.run()
    assert [len(batch) for batch in run.learner.batches] == [3, 3]
    assert not [name for name in run.trained if name.startswith("p1#")]
    assert ("reward", "reward failed on prompt p1, sample 0: boom") in run.told
    assert sum(row.get("rollout/num_dropped_groups", 0.0) for _, row in run.sink.rows) >= 1


async def test_too_many_failures_end_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeRewards(failing=[f"p{i}" for i in range(5)]))
    with pytest.raises(TooManyRewardErrors, match=r"failed on 6 trajectories.*allows 5.*boom"):
        await run.controller.run()
    assert run.learner.batches == []


async def test_more_may_fail_while_more_is_scored(tmp_path: Path) -> None:
    """Two steps ahead, six of eighteen are as many as two of six."""
    run = Run(tmp_path, FakeRewards(failing=["p1"]), max_staleness=2, max_errors=3.5)
    assert await run.controller.run() == "step-4"
    assert sum(row.get("rollout/num_dropped_groups", 0.0) for _, row in run.sink.rows) >= 2


async def test_the_ledger_knows_every_step_and_every_trajectory(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeRewards(failing=["p1"]), num_steps=2, checkpoint_every_steps=1)
    await run.controller.run()
    assert run.ledger.position().unfinished == ()
    names = [
        name
        for batch in run.learner.batches[1:]
        for g in batch
        for name in (s.summary.trajectory_id for s in g.samples)
    ]
    run.ledger.commit_step(2, names)  # known already, so nothing happens
    with pytest.raises(Exception, match="p1#"):
        run.ledger.commit_step(3, ["p1#0"])


async def test_a_batch_is_in_the_order_of_prompts_and_samples_however_it_raced(tmp_path: Path) -> None:
    run = Run(tmp_path)
    await run.controller.run()
    for batch in run.learner.batches:
        assert [group.index for group in batch] == sorted(group.index for group in batch)
        for group in batch:
            assert [s.reward.sample_index for s in group.samples] == sorted(
                s.reward.sample_index for s in group.samples
            )


@pytest.mark.parametrize("max_staleness", [0, 1])
async def test_a_batch_that_is_skipped_is_dropped_with_the_reason_and_replaced(
    tmp_path: Path, max_staleness: int
) -> None:
    guards, learner = FakeGuards(before={2: finding("skip")}), FakeLearner(skipping=[2])
    run = Run(tmp_path, guards=guards, learner=learner, max_staleness=max_staleness)
    await run.controller.run()
    assert len(run.trained) == len(set(run.trained)) == 4 * 3 * 2
    dropped = set(run.pool.requests) - set(run.trained)
    assert len(dropped) == 2 * 3 * 2, "two batches were skipped"
    assert ("guard", "guard reward: it exploded") in run.told
    assert any("the gap is too large" in text for _, text in run.told)
    with pytest.raises(Exception, match="dropped"):
        run.ledger.commit_step(5, [min(dropped)])


async def test_guards_end_the_run_or_ask_to_go_back(tmp_path: Path) -> None:
    run = Run(tmp_path, guards=FakeGuards(after={2: finding("stop")}))
    with pytest.raises(GuardStop, match="it exploded"):
        await run.controller.run()
    assert run.controller.step == 2
    run.ledger.close()
    again = Run(tmp_path, guards=FakeGuards(after={1: finding("rollback")}))
    with pytest.raises(RollbackRequested, match="it exploded"):
        await again.controller.run()


async def test_a_quarantined_prompt_is_dropped_with_the_reason(tmp_path: Path) -> None:
    run = Run(tmp_path, pool=FakePool(poisonous=["p2"]), num_steps=2)
    await run.controller.run()
    assert not [name for name in run.trained if name.startswith("p2#")]
    assert [len(batch) for batch in run.learner.batches] == [3, 3]
    with pytest.raises(Exception, match="dropped"):
        run.ledger.commit_step(3, ["p2#0"])


async def test_a_trajectory_that_is_lost_before_it_was_scored_is_sampled_again(tmp_path: Path) -> None:
    class Losing(FakeRewards):
        lost: tuple[str, ...] = ()

        async def score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
            if not self.lost:
                self.lost = (prompt.prompt_id,)
                raise DataLost("reward-0", "score", "the node is gone")
            return await super().score(prompt, trajectory)

    rewards = Losing()
    run = Run(tmp_path, rewards, num_steps=2)
    await run.controller.run()
    assert len(run.trained) == len(set(run.trained)) == 2 * 3 * 2
    again = [name for name in set(run.pool.requests) if run.pool.requests.count(name) == 2]
    assert len(again) == 1 and again[0].startswith(rewards.lost[0])


async def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    learner = FakeLearner()
    learner.failures = (OSError(28, "No space left on device"),)
    run = Run(tmp_path, learner=learner, num_steps=2)
    assert await run.controller.run() == "step-2"
    kinds = [text for kind, text in run.told if kind == "disk"]
    assert "the disk is full" in kinds[0] and "there is space again" in kinds[1]
