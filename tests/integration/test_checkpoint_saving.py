"""Checkpoints of real ranks: written while training goes on, exact, and taken over by another number of ranks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import ray

from actors.faults import WorkerDied
from actors.pools.checkpoint_saver import CheckpointSaver
from actors.pools.ranks import Ranks
from learner.metrics import to_floats
from learner.storage.manifest import find_newest_complete, verify
from tests.integration.learner_ranks import DEADLY, GATE, ranks
from tests.integration.test_learner_ranks import assert_close, batches, curve, save, spec, weights

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_the_files_are_those_of_deepspeed(zero_stage: int, tiny_model: Path, tmp_path: Path) -> None:
    with ranks(2, spec(tiny_model, "ppo", zero_stage=zero_stage)) as group:
        curve(group, 0, 1)
        assert group.call_blocking("differences_from_deepspeed", str(tmp_path), timeout_s=60) == [[], []]


def test_training_goes_on_while_a_checkpoint_is_written(tiny_model: Path, tmp_path: Path) -> None:
    """The writing ranks hold still until two more steps are done, and yet what they write is the state at step 2."""

    async def train_while_saving(group: Ranks) -> list[dict[str, float]]:
        saver, metrics = CheckpointSaver(group, checkpoints, 2, 60.0), []
        for step, samples in enumerate(batches()):
            if step == 2:
                gate.write_text("closed")
                await saver.begin(2, {"ledger": 7})
            results = await group.call("update", ray.put(samples), step, timeout_s=60)
            metrics.append(to_floats(results[0].metrics))
            if step == 3:
                assert saver.saving
                assert not list(checkpoints.glob("step-*"))
                gate.unlink()
                assert await saver.finish() == str(checkpoints / "step-2")
                assert not saver.saving
        return metrics

    checkpoints, gate = tmp_path / "checkpoints", tmp_path / "checkpoints" / GATE
    checkpoints.mkdir()
    with ranks(2, spec(tiny_model, "dvpo")) as group:
        found = asyncio.run(train_while_saving(group))
        expected = weights(group)
    assert verify(checkpoints / "step-2")["num_ranks"] == 2
    with ranks(2, spec(tiny_model, "dvpo")) as resumed:
        assert resumed.call_blocking("load", str(checkpoints / "step-2"), timeout_s=60) == [{"ledger": 7}] * 2
        assert curve(resumed, 2) == found[2:]  # bit by bit
        again = weights(resumed)
        assert all(np.array_equal(again[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_ranks_goes_on(before: int, after: int, tiny_model: Path, tmp_path: Path) -> None:
    """Adam's moments are the same numbers; what follows is the unbroken run but for the rounding of sums."""
    what = spec(tiny_model, "dvpo")
    with ranks(before, what) as group:
        curve(group, 0, 3)
        path = save(group, tmp_path, 3)
        moments = group.call_blocking("moments", timeout_s=60)[0]
        unbroken = curve(group, 3)
    assert len(moments) > 20 and all(np.abs(value).max() > 0 for value in moments.values())
    with ranks(after, what) as group:
        group.call_blocking("load", path, timeout_s=120)
        for found in group.call_blocking("moments", timeout_s=60):
            assert found.keys() == moments.keys()
            assert all(np.array_equal(found[name], value) for name, value in moments.items())
        resumed = curve(group, 3)
    assert_close(resumed, unbroken)
    for found, wanted in zip(resumed, unbroken, strict=True):
        for key in ("policy/loss", "critic/loss"):
            assert found[key] == pytest.approx(wanted[key], rel=1e-5, abs=1e-5)


def test_a_rank_that_dies_while_writing_leaves_the_older_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    what = spec(tiny_model, "ppo")
    with ranks(2, what) as group:
        curve(group, 0, 1)
        save(group, tmp_path, 1)
        (tmp_path / DEADLY).touch()
        curve(group, 1, 2)
        with pytest.raises(WorkerDied, match="learner-1 failed in write_snapshot: its process died"):
            save(group, tmp_path, 2)
    (tmp_path / DEADLY).unlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1"]
    assert find_newest_complete(tmp_path) == (tmp_path / "step-1", [])
