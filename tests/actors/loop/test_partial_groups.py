"""What becomes of a prompt of which some samples have no score: trained on in part, dropped, or refilled."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from actors.ledger.account import read_account
from actors.ledger.balance import Balance, check_balance
from actors.ledger.file import open_for_reading
from actors.loop.generation import MAX_REPLACEMENTS, PARTIAL
from rollout.rewards.errors import RewardErrorKind
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.trajectory import REPLACEMENT_STRIDE, Prompt
from tests.actors.loop.test_controller import FakePool, FakeRewards, Run


class FlakyRewards(FakeRewards):
    """Has no score for some samples of each epoch, by their name in the first."""

    def __init__(self, unscored: set[str], samples_per_epoch: int = 2) -> None:
        super().__init__()
        self.unscored, self.samples_per_epoch = unscored, samples_per_epoch

    async def score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        record = await super().score(prompt, trajectory)
        attempt, number = divmod(record.sample_index, REPLACEMENT_STRIDE)
        if f"{prompt.prompt_id}#{attempt * REPLACEMENT_STRIDE + number % self.samples_per_epoch}" not in self.unscored:
            return record
        return RewardRecord(
            prompt_id=record.prompt_id,
            sample_index=record.sample_index,
            outcome=RewardOutcome.ERROR,
            error="x",
            error_kind=RewardErrorKind.CODE,
        )


def attempts(name: str, number: int) -> set[str]:
    """A sample and its first replacements, ``number`` in all."""
    prompt_id, _, index = name.rpartition("#")
    return {f"{prompt_id}#{int(index) + attempt * REPLACEMENT_STRIDE}" for attempt in range(number)}


def balance(tmp_path: Path) -> Balance:
    with open_for_reading(tmp_path / "ledger.sqlite") as db:
        return check_balance(db, 5, 2)


async def test_train_uses_what_is_there(tmp_path: Path) -> None:
    run = Run(tmp_path, FlakyRewards({"p1#1"}), num_steps=2, max_errors=50.0)
    await run.controller.run()
    assert sum(name.startswith("p1#") for name in run.trained) == 1
    sizes = Counter(len(group.samples) for batch in run.learner.batches for group in batch)
    assert sizes == {2: 5, 1: 1}
    shares = [row["rollout/partial_group_frac"] for _, row in run.sink.rows if "rollout/partial_group_frac" in row]
    assert sorted(shares) == [0.0, pytest.approx(1 / 3)]
    assert balance(tmp_path) == Balance((), 0, 0)


async def test_drop_leaves_the_whole_prompt_out_and_takes_another(tmp_path: Path) -> None:
    run = Run(tmp_path, FlakyRewards({"p1#1"}), num_steps=2, max_errors=50.0, partial_groups="drop")
    await run.controller.run()
    assert not [name for name in run.trained if name.startswith("p1#")]
    assert len(run.trained) == 2 * 3 * 2
    with open_for_reading(tmp_path / "ledger.sqlite") as db:
        dropped = read_account(db).epochs[0].dropped
    assert dropped == {PARTIAL: 1, "no score: error (code)": 1}
    assert balance(tmp_path) == Balance((), 0, 0)


@pytest.mark.parametrize("max_staleness", [0, 2])
async def test_refill_asks_for_another_sample_until_one_has_a_score(tmp_path: Path, max_staleness: int) -> None:
    unscored = {*attempts("p1#1", 1), *attempts("p3#0", 2)}
    run = Run(tmp_path, FlakyRewards(unscored), max_errors=50.0, partial_groups="refill", max_staleness=max_staleness)
    await run.controller.run()
    assert all(len(group.samples) == 2 for batch in run.learner.batches for group in batch)
    assert {"p1#0", f"p1#{REPLACEMENT_STRIDE + 1}", f"p3#{2 * REPLACEMENT_STRIDE}", "p3#1"} <= set(run.trained)
    assert not attempts("p3#0", 2) & set(run.trained)
    assert len(run.trained) == len(set(run.trained)) == 4 * 3 * 2
    assert len(run.pool.requests) == len(set(run.pool.requests)), "no name is generated twice"
    replaced = sum(row.get("rollout/num_replacements", 0.0) for _, row in run.sink.rows)
    assert replaced == sum(int(name.rpartition("#")[2]) >= REPLACEMENT_STRIDE for name in run.pool.requests) >= 3
    assert balance(tmp_path) == Balance((), 0, 0)


async def test_refilling_ends_and_the_rest_is_trained_on(tmp_path: Path) -> None:
    rewards = FlakyRewards(attempts("p1#1", 99))
    run = Run(tmp_path, rewards, num_steps=2, max_errors=50.0, partial_groups="refill")
    await run.controller.run()
    asked = [name for name in run.pool.requests if name in rewards.unscored]
    assert sorted(asked) == sorted(attempts("p1#1", 1 + MAX_REPLACEMENTS))
    assert "p1#0" in run.trained and not set(asked) & set(run.trained)
    assert balance(tmp_path) == Balance((), 0, 0)


async def test_a_prompt_that_kills_workers_is_not_refilled(tmp_path: Path) -> None:
    run = Run(tmp_path, pool=FakePool(poisonous=["p2"]), num_steps=2, partial_groups="refill")
    await run.controller.run()
    with open_for_reading(tmp_path / "ledger.sqlite") as db:
        account = read_account(db)
    assert account.num_replacements == 0
    assert account.quarantined == ("p2",)
    assert balance(tmp_path) == Balance((), 0, 0)


async def test_a_resumed_run_refills_the_same(tmp_path: Path) -> None:
    """Replacements that belong to undone work are gone, and come again under the same names."""

    def begin(folder: Path, **options: Any) -> Run:
        folder.mkdir(exist_ok=True)
        rewards = FlakyRewards({*attempts("p1#1", 1), *attempts("p4#0", 2)})
        settings: dict[str, Any] = {"max_errors": 50.0, "partial_groups": "refill", "max_staleness": 2}
        return Run(folder, rewards, checkpoint_every_steps=1, **settings, **options)

    undisturbed = begin(tmp_path / "a")
    await undisturbed.controller.run()
    first = begin(tmp_path / "b")
    await first.controller.run()
    step, state = first.learner.saved[1]
    kept = [s.summary.trajectory_id for batch in first.learner.batches[:step] for g in batch for s in g.samples]
    first.ledger.close()
    second = begin(tmp_path / "b", state=state, step=step)
    await second.controller.run()
    assert sorted(kept + second.trained) == sorted(undisturbed.trained)
    assert balance(tmp_path / "b") == Balance((), 0, 0)
