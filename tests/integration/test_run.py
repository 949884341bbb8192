"""Whole runs from the command line: the run's folder, resuming, evaluating, failing and stopping in order."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.integration.whole_runs import Command, StartCommand, WriteConfig, read_metrics

pytestmark = pytest.mark.slow

GO_ON = """
import sys
from cluster.api import train
more = {"learner.num_workers": 2, "rollout.num_workers": 2, "training.num_steps": 14, "cluster.num_cpus": 5}
run = train(sys.argv[1], more, resume="auto")
trained = run.ledger.to_pydict()["state"].count("trained")
print(run, (run.metrics.num_rows, run.metrics["step"][-1].as_py(), trained))
"""

DOCUMENTED = [
    "vllm/generated_tokens_per_s",
    "rollout/staleness_mean",
    "rollout/staleness_max",
    "reward/observed_mean",
    "reward/clean_mean",
    "reward/corrupted_frac",
    "critic/coverage_q50",
    "critic/crossing_frac",
    "critic/explained_variance",
    "policy/sampler_kl",
    "policy/sampler_logprob_gap_max",
    "policy/approx_kl",
    "time/step_s",
    "time/wait_s",
    "time/train_s",
    "time/sync_load_s",
    "time/overlap_frac",
]


SECRETS = {
    "WANDB_API_KEY": "planted-0123456789-wandb",
    "MLFLOW_TRACKING_PASSWORD": "planted-0123456789-mlflow",
    "SCORE_TOKEN": "planted-0123456789-score",
    "HF_TOKEN": "hf_planted0123456789",
}


@pytest.mark.timeout(1500)  # three commands, each with engines of its own
def test_train_resume_and_evaluate(tmp_path: Path, start_command: StartCommand, write_config: WriteConfig) -> None:
    """One run through its life: its length is foretold, it ends, is resumed from Python, and is measured.

    It is resumed with two rollout workers and two learner ranks instead of one each.
    """
    training = {"num_steps": 12, "prompts_per_step": 32, "eval_every_steps": 6, "checkpoint_every_steps": 6}
    config = write_config(reward={"noise": [{"type": "symmetric_flip", "p": 0.5}]}, training=training)
    run_dir = tmp_path / "runs" / "run"
    expected_s = foretold_s(start_command("check", str(config), "--measure"))
    assert list((tmp_path / "runs").iterdir()) == []  # not even for a moment in the run's own folder
    begin = time.monotonic()
    first = start_command("train", str(config), **SECRETS)
    assert first.finish() == 0, first.output
    took_s = time.monotonic() - begin
    # A wide band: beside other tests a start alone takes once 9 s and once 20. The sum itself is in test_measure.py.
    assert took_s / 4 < expected_s < 4 * took_s
    assert first.survivors() == []
    assert_nowhere(list(SECRETS.values()), run_dir)
    assert "step 12/12" in first.output
    assert "clean accuracy, in-domain (test)" in first.output
    steps = read_metrics(run_dir)
    assert [step["step"] for step in steps] == list(range(1, 13))
    for step in steps:
        assert not [key for key in DOCUMENTED if not math.isfinite(step[key])]
        assert step["rollout/num_trajectories"] == 64
        assert step["policy/sampler_logprob_gap_max"] < 1e-4, "engines and learner disagree although nothing is stale"
    assert sorted(p.name for p in (run_dir / "checkpoints").iterdir()) == ["step-12", "step-6"]
    assert list((run_dir / "tensorboard").iterdir())
    assert {p.name for p in (run_dir / "logs").iterdir()}
    sample = json.loads((run_dir / "trajectories" / "step-1.jsonl").read_text().splitlines()[0])
    assert {"response", "observed_reward", "clean_reward"} <= set(sample)

    second = start_command(str(config), program=(sys.executable, "-c", GO_ON))
    assert second.finish() == 0, second.output
    assert "<Run 'run': 14 of 14 steps> (15, 14, 896)" in second.output
    assert f"going on after step 12 from {run_dir / 'checkpoints' / 'step-12'}" in second.output
    steps = read_metrics(run_dir)
    assert [step["step"] for step in steps] == list(range(1, 15))
    assert max(step["policy/sampler_logprob_gap_max"] for step in steps) < 1e-4
    assert start_command("ledger", str(run_dir)).finish() == 0

    answers = tmp_path / "answers.jsonl"
    checkpoint = run_dir / "checkpoints" / "step-14"
    third = start_command(
        "eval",
        str(checkpoint),
        *("--config", str(run_dir / "config.yaml"), "--output", str(answers)),
        *("--set", "evaluation.sampled=[{temperature: 0.7, top_k: 1, samples: 3}, {samples: 3}]"),
    )
    assert third.finish() == 0, third.output
    assert third.survivors() == []
    greedy, likeliest, free = by_setting(answers)
    assert_greedy_in_transformers(checkpoint / "policy", greedy)
    assert_sampled(greedy, likeliest, free, third.output)


def assert_nowhere(secrets: list[str], run_dir: Path) -> None:
    """No file of the run's folder has one of them: configuration, events, status, ledger, checkpoints, logs of Ray."""
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    assert len(files) > 20
    found = [(path, s) for path in files for s in secrets if s.encode() in path.read_bytes()]
    assert found == []


def foretold_s(check: Command) -> float:
    """What ``dvpo check --measure`` says of the length of a run, in seconds."""
    assert check.finish() == 0, check.output
    found = re.search(r"the whole run about ([\d.:]+)", check.output)
    assert found is not None, check.output
    assert check.output.endswith("ok\n")
    assert check.survivors() == []
    *minutes, seconds = found[1].removesuffix(" s").split(":")
    return 60.0 * float(minutes[0] if minutes else 0.0) + float(seconds)


def by_setting(answers: Path) -> list[list[dict[str, Any]]]:
    """What ``dvpo eval --output`` wrote: greedy answers, then those of each setting."""
    found: dict[str | None, list[dict[str, Any]]] = {}
    for line in answers.read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["setting"], []).append(record)
    assert list(found) == [None, "t0.7", "t1"]
    return list(found.values())


def assert_sampled(
    greedy: list[dict[str, Any]], likeliest: list[dict[str, Any]], free: list[dict[str, Any]], shown: str
) -> None:
    """Three samples of each prompt: of the likeliest token alone they are the greedy answer; free ones differ."""
    names = [(record["split"], record["prompt_id"]) for record in greedy]
    for records in (likeliest, free):
        assert [(r["split"], r["prompt_id"], r["sample_index"]) for r in records] == [
            (*name, index) for name in names for index in range(3)
        ]
    assert [r["token_ids"] for r in likeliest] == [r["token_ids"] for r in greedy for _ in range(3)]
    triples = [free[start : start + 3] for start in range(0, len(free), 3)]
    assert any(len({tuple(r["token_ids"]) for r in triple}) > 1 for triple in triples)
    right = [any(r["clean_reward"] for r in triple) for triple in triples if triple[0]["split"] == "test"]
    assert re.search(rf"sampled/t1/pass_at_3 \(test\) +{sum(right) / len(right):.3f} \[", shown)
    mean = sum(r["clean_reward"] for r in greedy if r["split"] == "test") / len(right)
    for name in ("pass_at_1", "pass_at_3", "majority_at_3"):
        assert re.search(rf"sampled/t0.7/{name} \(test\) +{mean:.3f} \[", shown)


def assert_greedy_in_transformers(model_folder: Path, records: list[dict[str, Any]]) -> None:
    """Each answer is what plain transformers decodes greedily from the same folder."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    assert len(records) >= 64
    for record in records[:16]:
        prompt = tokenizer.apply_chat_template(
            record["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**prompt, max_new_tokens=12, do_sample=False)
        assert output[0, prompt["input_ids"].shape[1] :].tolist() == record["token_ids"]
