"""``dvpo check --measure``: how long a run will take, from a few steps of it with the real model on this cluster."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.recording.event_log import read_events
from cluster.config.run_config import LoggingConfig, RunConfig
from cluster.display.report import format_duration

NUM_STEPS = 5
"""Steps that are taken; the first ones warm up and fill the queue of what is ahead of training."""
NUM_MEASURED = 3
MAX_TRAJECTORIES = 128
"""Trajectories of a measured step at most, as far as one prompt's samples and the ranks allow; more are computed from
them in proportion."""
MAX_EVAL_PROMPTS = 64
"""Likewise of each held-out split."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What some steps of a run took, in seconds, at the size that the configuration gives them.

    Attributes:
        start_s: from the command to the first step, evaluation left out.
        step_s: one step from end to end, evaluation and saving left out.
        generate_s, train_s: of a step; they may overlap.
        overlap_frac: share of the time in which both went on.
        eval_s: one evaluation of all held-out splits.
        save_s: what training waits for one checkpoint.
        end_s: from the last checkpoint until everything has ended.
        scale, eval_scale: how many times the steps and evaluations are larger than those that were taken.
    """

    start_s: float
    step_s: float
    generate_s: float
    train_s: float
    overlap_frac: float
    eval_s: float
    save_s: float
    end_s: float
    scale: float
    eval_scale: float

    def total_s(self, config: RunConfig) -> float:
        """The whole run."""
        training, num_steps = config.training, config.training.num_steps
        num_evals = 1 + (math.ceil(num_steps / training.eval_every_steps) if training.eval_every_steps else 1)
        num_saves = math.ceil(num_steps / training.checkpoint_every_steps) if training.checkpoint_every_steps else 1
        steps_s = num_steps * self.step_s + num_evals * self.eval_s + num_saves * self.save_s
        return self.start_s + steps_s + self.end_s

    def lines(self, config: RunConfig) -> list[str]:
        """In words."""
        scaled = "" if self.scale == 1.0 else f" (computed from steps of 1/{self.scale:.3g} of the size)"
        return [
            f"measured: a step takes about {_seconds(self.step_s)}{scaled}: generating {_seconds(self.generate_s)}, "
            f"training {_seconds(self.train_s)}, both at once {self.overlap_frac:.0%} of the time",
            f"measured: start {_seconds(self.start_s)}, an evaluation {_seconds(self.eval_s)}, a checkpoint "
            f"{_seconds(self.save_s)}, the end {_seconds(self.end_s)}; the whole run about "
            f"{_seconds(self.total_s(config))}, if responses stay as long as they are at the start",
        ]


def measuring_config(config: RunConfig, folder: Path) -> tuple[RunConfig, float, float]:
    """A short run in ``folder`` that does what the run will do, and nothing outside of it but asking the rewards.

    Returns:
        The configuration, and how many times a step and an evaluation of the run are larger.
    """
    training = config.training
    least = max(config.learner.num_workers, math.ceil(MAX_TRAJECTORIES / training.samples_per_prompt))
    prompts = min(training.prompts_per_step, least)
    eval_prompts = min(training.num_eval_prompts, MAX_EVAL_PROMPTS)
    short = config.model_copy(
        update={
            "name": "measure",
            "output_dir": str(folder),
            "training": training.model_copy(
                update={
                    "num_steps": NUM_STEPS,
                    "prompts_per_step": prompts,
                    "num_eval_prompts": eval_prompts,
                    "eval_every_steps": 0,
                    "checkpoint_every_steps": 0,
                }
            ),
            "learner": config.learner.model_copy(update={"critic_warmup_steps": 0}),
            # Sinks of the user's own may lead to a service where nobody looks for a measurement.
            "logging": LoggingConfig(tensorboard=False, progress="none"),
        }
    )
    return short, training.prompts_per_step / prompts, training.num_eval_prompts / eval_prompts


def measure(config: RunConfig) -> Measured:
    """Take a few steps of a run whose configuration has been checked, in a folder that is removed afterwards.

    Raises:
        UserError: the run cannot start.
        RuntimeError: it failed; the message says how.
    """
    from cluster.run.start import run_training

    config.run_dir.parent.mkdir(parents=True, exist_ok=True)
    # Beside the run's own folder: the same disk takes the checkpoint.
    folder = Path(tempfile.mkdtemp(prefix=".measure-", dir=config.run_dir.parent))
    try:
        short, scale, eval_scale = measuring_config(config, folder)
        begin = time.time()
        if (stopped := run_training(short)).stopped_by is not None:
            raise RuntimeError(f"the measurement was stopped by {stopped.signal_name}")
        run_dir, end = short.run_dir, time.time()
        started, saved = _last(run_dir, "start"), _last(run_dir, "checkpoint")
        save_s = max(0.0, saved - (run_dir / "metrics.jsonl").stat().st_mtime)  # from the last step's line on
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        return measured(lines, (started - begin, save_s, end - saved), scale, eval_scale)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measured(
    lines: Sequence[Mapping[str, float]], around: tuple[float, float, float], scale: float, eval_scale: float
) -> Measured:
    """What the lines of metrics.jsonl say.

    Args:
        lines: of the whole short run.
        around: seconds until everything had started, those of its checkpoint, and those of its end.
        scale, eval_scale: see :class:`Measured`.
    """
    steps = [line for line in lines if "time/step_s" in line][-NUM_MEASURED:]
    start_s, save_s, end_s = around
    evals = [line["time/eval_s"] for line in lines if "time/eval_s" in line]

    def median(key: str) -> float:
        return statistics.median(line[key] for line in steps)

    return Measured(
        start_s=start_s,
        step_s=scale * statistics.median(line["time/step_s"] - line.get("time/eval_s", 0.0) for line in steps),
        generate_s=scale * median("time/generate_s"),
        train_s=scale * median("time/train_s"),
        overlap_frac=median("time/overlap_frac"),
        eval_s=eval_scale * (evals[-1] if evals else 0.0),
        save_s=save_s,
        end_s=end_s,
        scale=scale,
        eval_scale=eval_scale,
    )


def _last(run_dir: Path, kind: str) -> float:
    """When the last event of this kind was, in seconds since the epoch."""
    return max(float(event["time"]) for event in read_events(run_dir / "events.jsonl") if event["kind"] == kind)


def _seconds(seconds: float) -> str:
    """``1.3 s``, ``2:05``."""
    return f"{seconds:.2g} s" if seconds < 60.0 else format_duration(seconds)
