"""Random kills in runs of the demo: does each complete, does its ledger balance, and does it learn as if nothing was?

For each seed two runs of ``configs/demo.yaml`` with a checkpoint every five steps: one is left alone, in the other a
random process is killed (SIGKILL) at each of ten random steps; when it is the driver, the run is resumed.

    python -m benchmarks.faults.chaos [--seeds 3] [--kills 10]

Needs the demo's model (``make demo`` makes it). Exit status 1 if a run does not complete or balance.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from actors.recording.sinks import read_metrics
from benchmarks.faults.live_run import ROOT, LiveRun

VICTIMS = ("rollout-0", "rollout-1", "engine-0", "engine-1", "reward-0", "learner-0", "controller", "driver")
START_TIMEOUT_S, END_TIMEOUT_S = 600.0, 1200.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run that has completed, and its ledger as ``dvpo ledger --json`` shows it."""

    kills: Counter[str]
    seconds: float
    accuracy: dict[str, float]
    ledger: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all pairs; prints two tables and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args(arguments)
    undisturbed, disturbed = [], []
    print("| seed | kills | seconds | clean accuracy, test | ood | ledger |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            undisturbed.append(run_demo(Path(folder), seed, 0))
            show(seed, undisturbed[-1])
            disturbed.append(run_demo(Path(folder), seed, options.kills))
            show(seed, disturbed[-1])
    print()
    compare(undisturbed, disturbed)
    return 0 if all(outcome.ledger["balanced"] for outcome in undisturbed + disturbed) else 1


def run_demo(folder: Path, seed: int, num_kills: int) -> Outcome:
    """One run of the demo with kills at random steps.

    Raises:
        FaultTestError: it does not go on in time, does not end in order, or its ledger does not balance.
    """
    settings = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    name = f"seed-{seed}-{num_kills}-kills"
    settings |= {"name": name, "seed": seed, "output_dir": str(folder / "runs")}
    settings["model"]["path"] = str(ROOT / settings["model"]["path"])
    settings["training"] |= {"checkpoint_every_steps": 5, "eval_every_steps": 0}
    settings["recovery"] = {"max_restarts": 20}
    settings["rollout"]["engine_process"] = "own"  # one of the victims
    settings["logging"] = {"progress": "plain", "tensorboard": False}
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(settings))
    rng, kills, begin = random.Random(seed), Counter[str](), time.monotonic()
    run = LiveRun(config)
    try:
        run.start()
        for step in sorted(rng.sample(range(2, settings["training"]["num_steps"] - 2), num_kills)):
            run.wait_until(lambda step=step: run.steps() >= step, f"at step {step}", START_TIMEOUT_S)  # type: ignore[misc]
            time.sleep(rng.uniform(0.0, 0.5))  # anywhere in a step
            victim = next(name for name in rng.sample(VICTIMS, len(VICTIMS)) if is_killed(run, name))
            kills[victim] += 1
            if victim == "driver":
                run.start(resume=True)
        if (status := run.finish(END_TIMEOUT_S)) != 0:
            raise run.failure(f"exit status {status}")
        if left := run.survivors():
            raise run.failure(f"processes left behind: {left}")
        return Outcome(kills, time.monotonic() - begin, final_accuracy(run), run.ledger())
    finally:
        run.end()


def is_killed(run: LiveRun, victim: str) -> bool:
    """Kill it if there is such a process now; one that is being replaced has none."""
    try:
        run.kill(victim)
    except (KeyError, ValueError, ProcessLookupError, psutil.NoSuchProcess):
        return False
    return True


def final_accuracy(run: LiveRun) -> dict[str, float]:
    """Clean accuracy by split after the last step."""
    last = read_metrics(run.folder / "metrics.jsonl")[-1]
    return {key.split("/")[1]: value for key, value in last.items() if key.startswith("eval/")}


def show(seed: int, outcome: Outcome) -> None:
    """One row of the table."""
    kills = ", ".join(f"{number} {victim}" for victim, number in sorted(outcome.kills.items())) or "none"
    accuracy = outcome.accuracy
    cells = (seed, kills, f"{outcome.seconds:.0f}", f"{accuracy['test']:.3f}", f"{accuracy['ood']:.3f}")
    print(f"| {' | '.join(map(str, cells))} | {outcome.ledger['verdict']} |", flush=True)


def compare(undisturbed: Sequence[Outcome], disturbed: Sequence[Outcome]) -> None:
    """Accuracy with and without kills, and the lengths of what was asked for again."""
    for split in undisturbed[0].accuracy:
        pairs = zip(undisturbed, disturbed, strict=True)
        gains = [killed.accuracy[split] - calm.accuracy[split] for calm, killed in pairs]
        spread = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        print(f"accuracy {split}, killed minus undisturbed: {statistics.mean(gains):+.3f} ± {spread:.3f} (mean ± s.e.)")
    for outcome in disturbed:
        found = outcome.ledger["reissues"]
        difference, error = (
            math.nan if found[key] is None else found[key] for key in ("difference", "difference_error")
        )
        print(
            f"{outcome.kills.total()} kills: {found['again']['num_samples']} trained samples had been asked for again, "
            f"{outcome.ledger['num_undone_samples']} trained ones undone; mean length minus that of the others of the "
            f"same step {difference:+.3f} ± {error:.3f} tokens"
        )
    print(f"{sum((outcome.kills for outcome in disturbed), Counter()).total()} kills in {len(disturbed)} runs")


if __name__ == "__main__":
    sys.exit(main())
