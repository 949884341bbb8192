"""The trajectory log keeps the files of the newest steps."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from actors.recording.trajectory_log import TrajectoryLog
from learner.update.result import TokenTrace


def groups() -> Any:
    """One group with three samples, as far as the log looks at it."""

    def sample(index: int) -> SimpleNamespace:
        trajectory: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        trajectory.set_result(
            SimpleNamespace(
                trajectory_id=f"p#{index}",
                response_text=f"é{index}",
                finish_reason="stop",
                policy_version_min=1,
                policy_version_max=2,
                engine="rollout-0",
                conversation={"outcome": {"metrics": {"won": 1.0}, "facts": {}}},
            )
        )
        reward = SimpleNamespace(observed=1.0, clean=0.0, parts={"exact": 1.0})
        return SimpleNamespace(trajectory=trajectory, reward=reward)

    extra = {"entry": "add", "when": datetime(2031, 2, 5), "ratio": math.nan, "half": "\ud83d", "engine": object()}
    prompt = SimpleNamespace(messages=[{"role": "user", "content": "1+1"}], reference="2", task="sums", extra=extra)
    return [SimpleNamespace(prompt=prompt, samples=[sample(i) for i in range(3)])]


def steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.iterdir())


async def test_first_samples_of_a_step_are_written(tmp_path: Path) -> None:
    await TrajectoryLog(tmp_path / "t", 2, keep_files=10).write(3, groups())
    records = [json.loads(line) for line in (tmp_path / "t" / "step-3.jsonl").read_text().splitlines()]
    assert [(record["trajectory_id"], record["response"]) for record in records] == [("p#0", "é0"), ("p#1", "é1")]
    assert [record["outcome"]["metrics"] for record in records] == [{"won": 1.0}] * 2


async def test_what_a_reward_reads_beside_the_response_is_written(tmp_path: Path) -> None:
    """In the forms that data files have; an object of a task's own, which has none, is left out."""
    await TrajectoryLog(tmp_path, 1).write(1, groups())
    record = json.loads((tmp_path / "step-1.jsonl").read_text())
    assert (record["task"], record["reference"]) == ("sums", "2")
    assert record["extra"] == {"entry": "add", "when": "2031-02-05T00:00:00", "ratio": None, "half": "\ufffd"}


async def test_only_the_newest_files_are_kept_also_over_a_restart(tmp_path: Path) -> None:
    log = TrajectoryLog(tmp_path, 1, keep_files=3)
    for step in range(8, 13):
        await log.write(step, groups())
    assert steps(tmp_path) == [10, 11, 12]
    resumed = TrajectoryLog(tmp_path, 1, keep_files=3)
    await resumed.write(12, groups())  # the step is done again
    assert steps(tmp_path) == [10, 11, 12]
    await resumed.write(13, groups())
    assert steps(tmp_path) == [11, 12, 13]


def traced(first: int, number: int) -> TokenTrace:
    return TokenTrace(
        first=first,
        num_left_out=0,
        sampled=(True,) * number,
        advantages=(0.5,) * number,
        old=(-0.1,) * number,
        new=(-0.2,) * number,
        levels=(0.5,),
        values=(((1.0,),),) * number,
        corrected=0.25,
    )


async def test_tokens_are_written_with_their_texts(tmp_path: Path) -> None:
    found: Any = groups()
    trajectory = await found[0].samples[0].trajectory
    trajectory.token_ids, trajectory.rollout_logprobs = (7, 8, 9), (0.0, -0.12345, -0.5)
    log = TrajectoryLog(tmp_path, 2, max_token_bytes=4096, spell=lambda ids: [f"é{token}" for token in ids])
    await log.write(1, found, {"p#0": traced(1, 2)})
    first, second = (json.loads(line) for line in (tmp_path / "step-1.jsonl").read_text().splitlines())
    assert first["tokens"]["texts"] == ["é8", "é9"] and first["tokens"]["sampler"] == [-0.1235, -0.5]
    assert first["tokens"]["new"] == [-0.2, -0.2] and first["tokens"]["values"] == [[[1.0]], [[1.0]]]
    assert first["corrected_reward"] == 0.25
    assert "tokens" not in second and "corrected_reward" not in second


async def test_records_of_tokens_keep_their_bound(tmp_path: Path) -> None:
    found: Any = groups()
    for sample in found[0].samples:
        trajectory = await sample.trajectory
        trajectory.token_ids, trajectory.rollout_logprobs = tuple(range(100)), (0.0,) * 100
    limit = 9000
    log = TrajectoryLog(tmp_path, 3, max_token_bytes=limit, spell=lambda ids: ["\U0001f600"] * len(ids))
    await log.write(1, found, {f"p#{i}": traced(0, 100) for i in range(3)})
    records = [json.loads(line) for line in (tmp_path / "step-1.jsonl").read_text().splitlines()]
    kept = [record["tokens"] for record in records if "tokens" in record]
    assert 0 < len(kept) < 3
    assert sum(len(json.dumps(tokens, ensure_ascii=False).encode()) for tokens in kept) <= limit
    assert all(record["corrected_reward"] == 0.25 for record in records)
