"""A project of ``dvpo init`` trains as it is, in its own folder, with its own module."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.integration.whole_runs import StartCommand, read_metrics

pytestmark = pytest.mark.slow

# The parts of a run without Ray, which would take most of the time.
PROGRAM = """
import asyncio, os, sys
from pathlib import Path
os.chdir(sys.argv[1])
sys.path.insert(0, os.getcwd())
from rollout.sampling.vllm_options import engine_environment
os.environ.update(engine_environment(on_gpu=False))
from cluster.config.run_config import load_config
from cluster.study.inline_run import Workshop, run_inline
config = load_config("config.yaml", sys.argv[2:])
async def train():
    return await run_inline(config, config.run_dir, Workshop(config))
print(asyncio.run(train()))
"""
SMALL = (
    "rollout.max_prompt_tokens=120",
    "rollout.sampling.max_response_tokens=8",
    "rollout.max_conversation_tokens=200",
    "rollout.kv_cache_mib=64",
    "training.num_steps=2",
    "training.eval_every_steps=0",
)


def test_a_dialogue_project_trains(tmp_path: Path, tiny_model: Path, start_command: StartCommand) -> None:
    folder = tmp_path / "project"
    made = start_command("init", str(folder), "--kind", "dialogue", "--model", str(tiny_model))
    assert made.finish() == 0, made.output
    command = start_command(str(folder), *SMALL, program=(sys.executable, "-c", PROGRAM))
    assert command.finish() == 0, command.output
    steps = read_metrics(folder / "runs" / "project")
    assert [step["rollout/num_trajectories"] for step in steps] == [32, 32]
    assert all(step["reward/num_errors"] == 0 and "eval/test/booked" in steps[-1] for step in steps)
