"""Throughput with generation and training in turns against both at once, in pairs, on this machine.

    python -m benchmarks.overlap [--pairs 3]

Both sides run `dvpo train` on the same random model with two rollout workers and one learner rank; only
``training.max_staleness`` differs. The first two steps of each run are left out (they hold the first requests' set-up).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from actors.recording.sinks import read_metrics
from cluster.warmstart.warmstart import WarmstartConfig, build_model, build_tokenizer
from rollout.tasks.chain import Chain

MODEL = WarmstartConfig(hidden_size=192, num_layers=4, num_heads=6, intermediate_size=512)
SKIPPED_STEPS = 2


def main() -> None:
    """Run the pairs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), options.steps)
        print("max_staleness  trajectories/s  tokens/s  generating  training  both  seconds a step")
        ratios = []
        for pair in range(options.pairs):
            rates = [measure(config, staleness, pair) for staleness in (0, 1)]
            ratios.append(rates[1] / rates[0])
    shown = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
    print(f"ratio of throughput, 1 over 0: median {statistics.median(ratios):.2f} of {shown}")


def write_config(folder: Path, num_steps: int) -> Path:
    """A random model and the configuration of a run on it."""
    task = Chain(Chain.Config())
    tokenizer = build_tokenizer(task.alphabet(), MODEL.max_position)
    model = folder / "model"
    build_model(tokenizer, MODEL).save_pretrained(model)
    tokenizer.save_pretrained(model)
    config: dict[str, Any] = {
        "output_dir": str(folder / "runs"),
        "model": {"path": str(model)},
        "algorithm": {"preset": "dvpo", "critic": {"num_heads": 2, "num_quantiles": 32}, "alpha": 0.2, "beta": 0.2},
        "rollout": {
            "num_workers": 2,
            "max_prompt_tokens": 48,
            "kv_cache_mib": 64,
            "sampling": {"max_response_tokens": 64},
        },
        "training": {"num_steps": num_steps, "prompts_per_step": 128, "samples_per_prompt": 1, "num_eval_prompts": 8},
        "cluster": {"cpus_per_rollout_worker": 0.5, "object_store_mib": 128},
        "logging": {"progress": "none"},
    }
    config["training"] |= {"eval_every_steps": 0, "checkpoint_every_steps": 0}
    path = folder / "overlap.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def measure(config: Path, staleness: int, pair: int) -> float:
    """One run; prints a row and returns trajectories a second."""
    name = f"staleness-{staleness}-{pair}"
    command = [sys.executable, "-m", "cluster.cli", "train", str(config), "--set", f"name={name}"]
    subprocess.run([*command, "--set", f"training.max_staleness={staleness}"], check=True, stdout=subprocess.DEVNULL)
    steps = [s for s in read_metrics(config.parent / "runs" / name / "metrics.jsonl") if "time/step_s" in s]
    steps = steps[SKIPPED_STEPS:-1]  # the last one holds the final evaluation
    seconds = sum(s["time/step_s"] for s in steps)
    rate = sum(s["rollout/num_trajectories"] for s in steps) / seconds
    tokens = sum(s["rollout/num_response_tokens"] for s in steps) / seconds
    wall = sum(s["time/wall_s"] for s in steps)
    shares = [
        sum(s[f"time/{key}_frac"] * s["time/wall_s"] for s in steps) / wall for key in ("generate", "train", "overlap")
    ]
    cells = "  ".join(f"{100 * share:8.0f} %" for share in shares)
    print(f"{staleness:13d}  {rate:14.1f}  {tokens:8.0f}  {cells}  {seconds / len(steps):8.2f}", flush=True)
    return rate


if __name__ == "__main__":
    main()
