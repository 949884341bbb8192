"""Conversations from end to end: real engines, an environment that fails now and then, two training steps."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from cluster.config.run_config import load_config
from rollout.component import ComponentSpec
from rollout.conversation.runner import Runner
from rollout.data.prompts import load_tokenizer, render
from rollout.sampling.vllm_inline import InlineVllmEngine
from rollout.sampling.vllm_options import engine_environment
from rollout.tasks.base import Example
from rollout.tasks.environments import environment_maker
from rollout.trajectory import FinishReason, Prompt, SampleRequest, Trajectory
from tests.integration.engines import model_logprobs
from tests.integration.talk import FAILING
from tests.integration.whole_runs import StartCommand, WriteConfig, read_metrics

pytestmark = pytest.mark.slow

NUM_PROMPTS, NUM_SAMPLES = 8, 2
IDS = [*(f"p{i}" for i in range(NUM_PROMPTS - 1)), FAILING]


def write_task(folder: Path) -> dict[str, Any]:
    """Questions in files, and who talks about them."""
    rows = [json.dumps({"id": name, "prompt": f"{number}+{number}"}) for number, name in enumerate(IDS)]
    (folder / "train.jsonl").write_text("\n".join(rows))
    (folder / "test.jsonl").write_text("\n".join(rows[:4]))
    return {
        "type": "dataset",
        "train": [str(folder / "train.jsonl")],
        "eval": {"test": [str(folder / "test.jsonl")]},
        "answer_column": None,
        "environment": {"type": "tests.integration.talk:Talk"},
    }


def sampled_again(config_file: Path) -> list[Trajectory]:
    """The trajectories of the first step, from one engine that serves all at once, in a process that has no other."""
    os.environ.update(engine_environment(on_gpu=False))
    return asyncio.run(_sampled_again(config_file))


async def _sampled_again(config_file: Path) -> list[Trajectory]:
    config = load_config(config_file)
    make_environment = environment_maker(ComponentSpec.model_validate(config.data.task))
    tokenizer = load_tokenizer(config.model.path)
    examples = [
        Example(example_id=name, messages=({"role": "user", "content": f"{number}+{number}"},), reference=None)
        for number, name in enumerate(IDS)
    ]
    prompts: list[Prompt] = render(tokenizer, examples, "dataset")
    engine = InlineVllmEngine(config.model.path, config.rollout)
    await engine.set_version(0)
    runner = Runner(engine, tokenizer, config.rollout, config.seed, "here", make_environment)
    requests = [SampleRequest(prompt, index) for prompt in prompts for index in range(NUM_SAMPLES)]
    trajectories = [await runner.sample(request) for request in requests]
    await engine.shutdown()
    return trajectories


def check_against_the_model(model: Any, trajectory: Trajectory) -> None:
    """What was sampled has the log-probability that plain transformers gives it in the whole conversation."""
    expected = torch.cat([torch.zeros(1), model_logprobs(model, trajectory.token_ids)])
    sampled, found = torch.tensor(trajectory.action_mask), torch.tensor(trajectory.rollout_logprobs)
    assert float((found - expected)[sampled].abs().max()) < 1e-3
    assert not found[~sampled].any()


def test_two_steps_of_conversations(
    tmp_path: Path, tiny_model: Path, start_command: StartCommand, write_config: WriteConfig
) -> None:
    """Two engines of a run and one beside it say the same; the learner agrees about every token; failures are told."""
    config = write_config(
        data={"task": write_task(tmp_path)},
        reward={"functions": [{"type": "outcome", "metrics": {"letters": 0.1}}]},
        rollout={
            "num_workers": 2,
            "max_turns": 3,
            "max_conversation_tokens": 160,
            "sampling": {"max_response_tokens": 10, "stop": ["a", "b"]},
        },
        training={"num_steps": 2, "prompts_per_step": NUM_PROMPTS, "samples_per_prompt": NUM_SAMPLES},
        logging={"progress": "plain", "trajectory_samples_per_step": 100},
    )
    command = start_command("train", str(config))
    assert command.finish() == 0, command.output
    assert "environment failed on prompt failing, sample 0: step: RuntimeError: out of words" in command.output
    run_dir = tmp_path / "runs" / "run"
    first, second = read_metrics(run_dir)
    for metrics in (first, second):
        assert metrics["rollout/environment_failures"] == NUM_SAMPLES * metrics["rollout/num_dropped_groups"]
        assert metrics["rollout/num_trajectories"] == NUM_PROMPTS * NUM_SAMPLES  # another prompt takes the place
        assert metrics["reward/num_errors"] == 0
        assert metrics["policy/sampler_logprob_gap_max"] < 1e-3
        assert metrics["rollout/num_turns"] == metrics["environment/turns"] > 1.2
    assert first["rollout/environment_failures"] >= NUM_SAMPLES
    records = [json.loads(line) for line in (run_dir / "trajectories" / "step-1.jsonl").read_text().splitlines()]
    lengths = [record["outcome"]["metrics"]["letters"] for record in records]
    assert first["environment/letters"] == pytest.approx(sum(lengths) / len(lengths))
    assert first["reward/observed_mean"] == pytest.approx(0.1 * first["environment/letters"])
    held_out = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert all(line["eval/test/turns"] >= 1 for line in held_out if "eval/test/accuracy" in line)
    assert len({record["engine"] for record in records}) == 2

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        trajectories = process.submit(sampled_again, config).result(timeout=180.0)
    again = {trajectory.trajectory_id: trajectory for trajectory in trajectories}
    failed = {name for name, trajectory in again.items() if trajectory.failure}
    assert failed == {f"{FAILING}#{index}" for index in range(NUM_SAMPLES)}
    compared = [record for record in records if record["trajectory_id"] in again]  # others are of the second epoch
    assert {record["trajectory_id"] for record in compared} == again.keys() - failed
    for record in compared:
        trajectory = again[record["trajectory_id"]]
        assert record["conversation"] == list(trajectory.messages)
        assert trajectory.outcome is not None and record["outcome"]["facts"] == trajectory.outcome.facts
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    whole = [trajectory for name, trajectory in again.items() if name not in failed]
    for trajectory in whole:
        check_against_the_model(model, trajectory)
        assert trajectory.num_turns == sum(message["role"] == "assistant" for message in trajectory.messages)
        assert trajectory.action_mask[-1]
    assert {trajectory.num_turns for trajectory in whole} == {1, 2, 3}
    assert {trajectory.finish_reason for trajectory in whole} == {FinishReason.STOP, FinishReason.LENGTH}
