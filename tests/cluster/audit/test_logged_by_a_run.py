"""An audit of a run's own trajectories gives a reward what training gave it."""

from __future__ import annotations

import asyncio
import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from actors.groups import Group, Sample
from actors.recording.trajectory_log import TrajectoryLog
from cluster.audit.audit import run_audit
from cluster.audit.responses import gold_responses, logged_responses
from cluster.config.run_config import RunConfig, load_config
from rollout.component import UserError
from rollout.data.prompts import load_tokenizer, render
from rollout.scoring.record import RewardRecord
from rollout.tasks.dataset import Dataset
from rollout.trajectory import FinishReason, Prompt, Trajectory, TrajectorySummary

READER = """
async def paid(prompt, trajectory, key="entry"):
    return float(prompt.extra[key] is not None and prompt.task == "dataset")
"""
CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "2+3", "name": "ann"}]


def config_of(run_file: Path) -> RunConfig:
    return load_config(run_file, [f"output_dir={run_file.parent / 'runs'}"])


def asked(config: RunConfig, *rows: dict[str, Any]) -> list[Prompt]:
    """The prompts that a data set of these rows gives a run."""
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), "train.parquet")
    task = Dataset(Dataset.Config(train=("train.parquet",), eval={"test": ("train.parquet",)}))
    return render(load_tokenizer(config.model.path), task.examples("train"), "dataset")


async def answered(prompt: Prompt) -> Group:
    """One prompt with one response, as a batch has it."""
    trajectory = Trajectory(
        prompt_id=prompt.prompt_id,
        sample_index=0,
        token_ids=(*prompt.token_ids, 1),
        action_mask=(*[False] * len(prompt.token_ids), True),
        rollout_logprobs=(0.0,) * (len(prompt.token_ids) + 1),
        response_text="=5",
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )
    held: asyncio.Future[Trajectory] = asyncio.get_running_loop().create_future()
    held.set_result(trajectory)
    sample = Sample(TrajectorySummary.of(trajectory), RewardRecord.scored(trajectory, 1.0), held)
    return Group(0, f"{prompt.prompt_id}@0", prompt, 1, 0, [sample])


async def logged(config: RunConfig, prompts: list[Prompt]) -> None:
    log = TrajectoryLog(config.run_dir / "trajectories", len(prompts))
    await log.write(1, [await answered(prompt) for prompt in prompts])


@pytest.mark.parametrize(
    "columns",
    [
        {"entry": "add", "level": 3},
        {"tests": [{"call": "add(2, 3)", "value": 5}], "tags": []},
        {"asked": datetime.datetime(2031, 2, 5, 6), "price": Decimal("1.10"), "blob": b"\x00\xff"},
        {"share": float("inf"), "gap": float("nan"), "none": None, "name": "\u00e9\u2028"},
    ],
)
@pytest.mark.parametrize("chat", [False, True])
async def test_prompts_are_read_back_equal(columns: dict[str, Any], chat: bool, run_file: Path) -> None:
    config = config_of(run_file)
    question: dict[str, Any] = {"messages": CHAT} if chat else {"prompt": "2+3"}
    prompts = asked(config, {**question, "answer": "5", "id": "q1", **columns})
    assert set(prompts[0].extra) == set(columns)
    await logged(config, prompts)
    assert [response.prompt for response in logged_responses(config)] == prompts


def test_a_reward_that_reads_a_further_column_is_audited(run_file: Path) -> None:
    Path("reader.py").write_text(READER)
    text = run_file.read_text().replace("{type: exact_match}", '{type: "reader:paid"}')
    run_file.write_text(text)
    config = config_of(run_file)
    asyncio.run(logged(config, asked(config, *[{"prompt": f"{n}+1", "entry": n} for n in range(4)])))
    report = run_audit(config)
    assert (report.num_responses, report.num_unscored, report.observed_mean) == (4, {}, 1.0)


def test_logs_of_earlier_versions_are_read(run_file: Path) -> None:
    config = config_of(run_file)
    asyncio.run(logged(config, asked(config, {"prompt": "2+3", "entry": 1})))
    (path,) = (config.run_dir / "trajectories").iterdir()
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in record.items() if key not in ("extra", "task")}))
    (response,) = logged_responses(config)
    assert (response.prompt.extra, response.prompt.task) == ({}, "audit")
    path.write_text(json.dumps(record | {"extra": [1]}))
    with pytest.raises(UserError, match=r"step-1.jsonl:1: 'extra' must be an object, got \[1\]"):
        logged_responses(config)


def test_gold_files_have_the_same_forms_as_data(run_file: Path) -> None:
    config = config_of(run_file)
    rows = [
        {"prompt": "2+3", "response": "=5", "gold": 1, "reference": 5.0, "at": datetime.date(2031, 2, 5)},
        {"prompt": "2+4", "response": "=6", "gold": 1, "reference": None, "at": None},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), "gold.parquet")
    found = gold_responses(config, Path("gold.parquet"))
    assert [response.prompt.reference for response in found] == ["5", None]
    assert [response.prompt.extra for response in found] == [{"at": "2031-02-05"}, {"at": None}]
    Path("chat.jsonl").write_text(json.dumps(rows[1] | {"prompt": json.dumps(CHAT)}))
    with pytest.raises(UserError, match=r"chat.jsonl:1: 'prompt' holds a chat written as text"):
        gold_responses(config, Path("chat.jsonl"))
