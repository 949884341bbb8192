"""Run folders made by hand for tests: 40 steps of a run that learns, and what a test changes about it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actors.ledger.ledger import Ledger
from actors.ledger.samples import SampleScore
from cluster.report.run_record import RunRecord, read_run

STEPS, PER_STEP = 40, 8
Line = dict[str, float]
Sample = dict[str, Any]


def healthy_line(step: int, rng: random.Random) -> Line:
    """Metrics of one step of a run that learns from .5 to .9, with noise of 10 % to both sides that is known."""
    done = step / STEPS
    clean = 0.5 + 0.4 * done + rng.gauss(0.0, 0.02)
    line: Line = {
        "step": step,
        "time": 1000.0 + 2.0 * step,
        "time/step_s": 2.0,
        "time/wait_s": 0.5,
        "time/train_s": 1.0,
        "rollout/num_trajectories": 128.0,
        "rollout/num_response_tokens": 1024.0,
        "rollout/response_tokens_mean": 8.0 + rng.gauss(0.0, 0.05),
        "rollout/truncated_frac": 0.0,
        "rollout/staleness_mean": 1.0,
        "reward/observed_mean": 0.1 + 0.8 * clean + rng.gauss(0.0, 0.02),
        "reward/clean_mean": clean,
        "reward/false_positive_rate": 0.1 + rng.gauss(0.0, 0.03),
        "reward/false_negative_rate": 0.1 + rng.gauss(0.0, 0.03),
        "reward/num_scored": 128.0,
        "reward/num_missing": 0.0,
        "reward/num_abstained": 0.0,
        "reward/zero_variance_group_frac": 0.1,
        "trust/num_rechecked": 1000.0,
        "policy/entropy": 0.15 * (1.0 - 0.5 * done),
        "policy/lr": 3e-4,
        "policy/grad_norm": 0.2,
        "policy/clip_frac": 0.0,
        "policy/importance_ess_frac": 0.999,
        "policy/importance_truncated_frac": 0.0,
        "policy/sampler_logprob_gap_p95": 0.01 + rng.random() * 0.01,
        "guard/sampler_gap_stale": 0.05 + rng.random() * 0.02,
        "guard/num_nonfinite_steps": 0.0,
        "sync/canary_gap_max": 3e-6,
        "sync/weights_changed": 1.0,
        "critic/explained_variance": 0.2 * done,
        "critic/bias": -0.5 * math.exp(-step / 5.0),
        "critic/return_mean": 0.1 + 0.8 * clean,
        "critic/loss": 0.3,
        "critic/lr": 1e-3,
        **interval("trust/false_positive_rate", 0.1),
        **interval("trust/false_negative_rate", 0.1),
        **interval("trust/j", 0.8),
        **interval("trust/error_length_correlation", 0.0),
    }
    if step % 10 == 0:
        line["policy/kl_to_start"] = 0.06 * done
        line |= interval("eval/test/accuracy", 0.5 + 0.4 * done) | interval("eval/ood/accuracy", 0.45 + 0.35 * done)
    return line


def interval(key: str, value: float, half: float = 0.03) -> Line:
    """A metric with the ends of its interval."""
    return {key: value, f"{key}_low": value - half, f"{key}_high": value + half}


def healthy_sample(step: int, number: int, rng: random.Random) -> Sample:
    """A question of digits and its answer, right more and more often; one score in ten is flipped."""
    reference = rng.randrange(10)
    right = rng.random() < 0.5 + 0.4 * step / STEPS
    answer = reference if right else (reference + rng.randrange(1, 10)) % 10
    clean = float(right)
    return {
        "trajectory_id": f"p-{step}-{number}#0",
        "task": "chain",
        "messages": [{"role": "user", "content": f"{rng.randrange(10)}+{rng.randrange(10)}+1.."}],
        "reference": str(reference),
        "extra": {},
        "response": f"{rng.randrange(10)} {rng.randrange(10)}={answer}",
        "finish_reason": "stop",
        "observed_reward": 1.0 - clean if rng.random() < 0.1 else clean,
        "clean_reward": clean,
        "reward_parts": {"exact_match": clean},
        "policy_versions": [max(0, step - 2), max(0, step - 2)],
        "engine": "rollout-0",
    }


CONFIG: dict[str, Any] = {
    "name": "made",
    "seed": 0,
    "model": {"path": "models/none"},
    "data": {"task": {"type": "chain", "num_train": 8192}},
    "reward": {"functions": [{"type": "exact_match"}], "noise": [{"type": "symmetric_flip", "p": 0.1}]},
    "algorithm": {"preset": "dvpo"},
    "rollout": {"sampling": {"max_response_tokens": 24}},
    "training": {"num_steps": STEPS, "prompts_per_step": 128, "samples_per_prompt": 1, "max_staleness": 1},
}


def make_run(
    folder: Path,
    change: Callable[[int, Line], Mapping[str, float | None]] | None = None,
    change_sample: Callable[[int, Sample], Mapping[str, Any]] | None = None,
    events: tuple[Mapping[str, Any], ...] = (),
    drop: tuple[str, ...] = (),
    with_samples: bool = True,
    num_steps: int = STEPS,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run's folder.

    Args:
        change: metrics of a step that replace those of a healthy run; a value None removes one.
        change_sample: the same of each logged trajectory.
        drop: metrics whose keys begin so are left out.
    """
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(json.dumps({**CONFIG, **(config or {})}))
    lines = []
    for step in range(num_steps + 1):
        line: dict[str, float | None] = dict(healthy_line(step, rng))
        if step == 0:
            line = {key: value for key, value in line.items() if key.startswith(("eval/", "step"))} | {"time": 1000.0}
        else:
            line |= change(step, healthy_line(step, random.Random(step))) if change is not None else {}
        if step == 0 and change is not None:
            line |= {k: v for k, v in change(0, healthy_line(0, rng)).items() if k.startswith("eval/")}
        lines.append({k: v for k, v in line.items() if v is not None and not k.startswith(drop or ("\0",))})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "events.jsonl").write_text(
        "".join(json.dumps({"time": 1000.0, "level": "warning", "step": 1, **e}) + "\n" for e in events)
    )
    if with_samples:
        (folder / "trajectories").mkdir(exist_ok=True)
        for step in range(1, num_steps + 1):
            samples = [healthy_sample(step, number, rng) for number in range(PER_STEP)]
            samples = [{**s, **(change_sample(step, s) if change_sample is not None else {})} for s in samples]
            text = "".join(json.dumps(sample) + "\n" for sample in samples)
            (folder / "trajectories" / f"step-{step}.jsonl").write_text(text)
    return folder


def made(*arguments: Any, **options: Any) -> RunRecord:
    """A run's record; see :func:`make_run`."""
    return read_run(make_run(*arguments, **options))


def make_ledger(folder: Path, num_prompts: int, repeats: int) -> None:
    """A ledger of prompts that were all trained on so often; sample i of a prompt answers 'a' or 'b'."""
    ledger = Ledger(folder / "ledger.sqlite", num_prompts=num_prompts, samples_per_prompt=1)
    for index in range(num_prompts * repeats):
        epoch, prompt = divmod(index, num_prompts)
        ledger.admit(index, f"p-{prompt}", epoch, epoch, 1)
        score = SampleScore(
            observed=float(epoch % 2), answer_key="a" if epoch % 3 else "b", gold=1.0 if epoch % 3 else None
        )
        ledger.ready(f"p-{prompt}#{epoch}", 3, score)
        ledger.commit_step(index + 1, [f"p-{prompt}#{epoch}"])
    ledger.close()
