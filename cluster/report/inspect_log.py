"""A run's logged trajectories as an ``.eval`` log of Inspect, so that its viewer and scanners open them."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.report.run_record import RunRecord
from cluster.report.samples import LoggedTrajectory
from cluster.report.verdict import verdict
from rollout.component.mistakes import BadArgument, NothingRecorded, NotWritable, PackageMissing

STATUS = {"finished": "success", "stopped": "cancelled", "failed": "error"}
STOP_REASONS = {"stop": "stop", "length": "max_tokens"}
"""Finish reasons of ours and of Inspect; others are ``unknown``."""


def write_inspect_log(run: RunRecord, path: Path) -> int:
    """Write every logged trajectory of a run as a sample; returns how many.

    A sample is a prompt in an epoch of it; its scores are the observed, the true and the corrected reward, as far as
    each is known, and the parts of the true one. Metadata has the step, the weights' versions and, where they were
    recorded, the numbers of each token.

    Raises:
        UserError: Inspect is not installed, the run has logged nothing, the name does not end in .eval or .json, or the
            file cannot be written.
    """
    if importlib.util.find_spec("inspect_ai") is None:
        raise PackageMissing(
            "--inspect: needs the package inspect-ai: pip install 'dvpo[inspect]', or the package alone"
        )
    if path.suffix not in (".eval", ".json"):
        raise BadArgument(f"--inspect: {path}: Inspect reads files that end in .eval or .json")
    if not run.trajectories:
        raise NothingRecorded(f"RUN: {run.folder} has logged no trajectory (logging.trajectory_samples_per_step)")
    from inspect_ai.log import EvalLog, write_eval_log

    samples = list(_samples(run.trajectories))
    log = EvalLog.model_validate(
        {
            "version": 2,
            "status": STATUS.get(verdict(run).state, "started"),
            "eval": _spec(run, samples),
            "results": {"total_samples": len(samples), "completed_samples": len(samples), "scores": _means(samples)},
            "samples": samples,
        }
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_eval_log(log, str(path))
    except OSError as error:
        raise NotWritable(f"--inspect: cannot write {path}: {error.strerror or error}") from error
    return len(samples)


def _spec(run: RunRecord, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """What Inspect shows above the samples."""
    began = run.metrics.lines[0].get("time") if run.metrics.lines else None
    created = datetime.fromtimestamp(began, UTC) if isinstance(began, int | float) else datetime.now(UTC)
    task = str(run.settings.get("data.task.type", "run"))
    names = sorted({name for sample in samples for name in sample["scores"]})
    return {
        "eval_id": run.name,
        "run_id": run.name,
        "created": created.isoformat(),
        "task": f"dvpo/{run.name}",
        "task_id": run.name,
        "task_args": {"algorithm": run.settings.algorithm, "task": task},
        "dataset": {"name": task, "samples": len({sample["id"] for sample in samples})},
        "model": f"dvpo/{Path(str(run.settings.get('model.path', 'policy'))).name}",
        "model_generate_config": {
            name: value
            for name, key in (("temperature", "temperature"), ("max_tokens", "max_response_tokens"))
            if (value := run.settings.get(f"rollout.sampling.{key}")) is not None
        },
        "config": {"epochs": max(sample["epoch"] for sample in samples)},
        "scorers": [{"name": name} for name in names],
        "metadata": {"settings": dict(run.settings.values)},
    }


def _samples(trajectories: Iterable[LoggedTrajectory]) -> Iterable[dict[str, Any]]:
    epochs: dict[str, int] = {}
    for found in trajectories:
        # Inspect knows a sample by its id and epoch: here the number of the prompt's logged trajectory.
        epochs[found.prompt_id] = epoch = epochs.get(found.prompt_id, 0) + 1
        yield _sample(found, epoch)


def _sample(found: LoggedTrajectory, epoch: int) -> dict[str, Any]:
    messages = [_message(message) for message in found.prompt]
    turns = [_message(message) for message in found.turns]
    answer = {"role": "assistant", "content": found.response, "source": "generate"}
    return {
        "id": found.prompt_id,
        "epoch": epoch,
        "uuid": found.trajectory_id,
        "input": messages,
        "target": found.reference or "",
        "messages": [*messages, *(turns or [answer])],
        "output": {
            "model": found.engine,
            "choices": [{"message": answer, "stop_reason": STOP_REASONS.get(found.finish_reason, "unknown")}],
        },
        "scores": _scores(found),
        "metadata": {
            "trajectory_id": found.trajectory_id,
            "step": found.step,
            "policy_versions": None if found.versions is None else list(found.versions),
            "tokens": _tokens(found),
        },
    }


def _message(message: Mapping[str, str]) -> dict[str, Any]:
    role, content = str(message.get("role", "user")), str(message.get("content", ""))
    # A tool's answer names a call in Inspect, of which texts know nothing.
    return {"role": role if role in ("system", "user", "assistant") else "user", "content": content}


def _scores(found: LoggedTrajectory) -> dict[str, Any]:
    known = {"observed": found.observed, "true": found.clean, "corrected": found.corrected}
    known |= {f"part {name}": value for name, value in found.parts.items()}
    return {
        name: {"value": value, "answer": found.response}
        for name, value in known.items()
        if value is not None and math.isfinite(value)
    }


def _tokens(found: LoggedTrajectory) -> dict[str, Any] | None:
    """What was recorded of each token, without the quantiles, which are in the report."""
    tokens = found.tokens
    if tokens is None:
        return None
    names = ("texts", "sampled", "advantages", "sampler", "old", "new")
    found_tokens: dict[str, Any] = json.loads(json.dumps({name: list(getattr(tokens, name)) for name in names}))
    return found_tokens


def _means(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean of each score, over the samples that have it."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        for name, score in sample["scores"].items():
            values.setdefault(name, []).append(score["value"])
    return [
        {
            "name": name,
            "scorer": name,
            "scored_samples": len(found),
            "unscored_samples": len(samples) - len(found),
            "metrics": {"mean": {"name": "mean", "value": math.fsum(found) / len(found)}},
        }
        for name, found in sorted(values.items())
    ]
