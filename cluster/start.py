"""From a checked configuration to a finished run: start everything, show progress, end everything."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.components import resolve
from cluster.config import RunConfig, dump_config
from cluster.progress import Progress, RunSummary, StepReport, make_progress
from cluster.resume import ResumePoint, find_resume_point
from cluster.session import ray_session
from cluster.signals import Interrupted, SignalFlag
from cluster.summary import summary_rows
from cluster.waiting import wait_for
from cluster.workers import Workers, create_workers
from rollout.component import UserError

if TYPE_CHECKING:
    from actors.learner_worker import LearnerSpec

POLL_S = 1.0


def run_training(config: RunConfig, resume: str | None = None, plan_lines: Sequence[str] = ()) -> RunSummary:
    """Run a configuration to its end.

    Args:
        resume: None for a new run; ``auto`` for the newest complete checkpoint of the run's folder; or the path of
            one.
        plan_lines: what will be done, in words, shown first.

    Raises:
        UserError: the run's folder is taken, there is nothing to resume, or the cluster cannot hold the run.
        RuntimeError: a worker failed; the message names it and the cause.
    """
    run_dir = config.run_dir.resolve()
    point = find_resume_point(run_dir, resume)
    if point is None and (run_dir / "metrics.jsonl").exists():
        raise UserError(
            f"{run_dir} already holds a run; go on with it by --resume, or choose another name (--set name=...)"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.yaml").write_text(dump_config(resolve(config)), encoding="utf-8")
    progress = make_progress(config.logging.progress)
    signals = SignalFlag()
    rows: list[tuple[str, str]] = []
    with signals.handled():
        progress.start([*plan_lines, *_resume_lines(point)])
        try:
            with ray_session(config, run_dir):
                signals.install()
                result = _run(config, run_dir, point, progress, signals)
            rows = summary_rows(config, run_dir, result)
        except Interrupted:
            pass
        finally:
            progress.finish(rows)
    return RunSummary(rows=rows, stopped_by=signals.received)


def _resume_lines(point: ResumePoint | None) -> list[str]:
    if point is None:
        return []
    return [f"going on after step {point.step} from {point.path}", *(f"skipped {reason}" for reason in point.skipped)]


def _run(
    config: RunConfig, run_dir: Path, point: ResumePoint | None, progress: Progress, signals: SignalFlag
) -> dict[str, Any]:
    import ray

    from cluster.controller_host import ControllerHost

    policy_path = str(point.path / "policy") if point else _local(config.model.path)
    tokenizer_path = _local(config.model.path)
    begin = time.monotonic()
    workers = create_workers(config, policy_path, tokenizer_path)
    controller = None
    try:
        state = _start_workers(config, workers, point, progress, signals)
        controller = (
            ray.remote(ControllerHost)
            .options(num_cpus=0, max_concurrency=1000)
            .remote(
                config,
                str(run_dir),
                tokenizer_path,
                workers.rollouts,
                workers.rewards,
                workers.learners,
                point.step if point else 0,
                state,
            )
        )
        progress.event(f"everything started in {time.monotonic() - begin:.1f} s")
        return _watch(config, controller, progress, signals)
    except ray.exceptions.RayError as error:
        raise RuntimeError(_root_cause(error)) from error
    finally:
        workers.stop(config.cluster.shutdown_timeout_s)
        if controller is not None:
            ray.kill(controller)


def _start_workers(
    config: RunConfig, workers: Workers, point: ResumePoint | None, progress: Progress, signals: SignalFlag
) -> dict[str, Any] | None:
    """Start engines and learner ranks side by side; returns the controller's part of the checkpoint, if any."""
    import ray

    timeout_s = config.cluster.start_timeout_s
    deadline = time.monotonic() + timeout_s
    engines = {f"rollout-{i}": worker.start.remote() for i, worker in enumerate(workers.rollouts)}
    host, port = ray.get(workers.learners[0].address.remote(), timeout=timeout_s)
    world, spec = len(workers.learners), _learner_spec(config)
    ranks = {
        f"learner-{rank}": worker.setup.remote(rank, world, host, port, spec)
        for rank, worker in enumerate(workers.learners)
    }
    wait_for(ranks, "setup", deadline, signals)
    progress.event("learner ready")
    wait_for(engines, "start", deadline, signals)
    workers.engines_started = True
    progress.event(f"{len(engines)} rollout engine{'s' if len(engines) > 1 else ''} ready")
    if point is None:
        return None
    loads = {f"learner-{r}": worker.load.remote(str(point.path)) for r, worker in enumerate(workers.learners)}
    return dict(wait_for(loads, "load", deadline, signals)["learner-0"])


def _learner_spec(config: RunConfig) -> LearnerSpec:
    from actors.learner_worker import LearnerSpec

    return LearnerSpec(
        model=config.model.model_copy(update={"path": _local(config.model.path)}),
        learner=config.learner,
        algorithm=config.algorithm.name,
        algorithm_options=config.algorithm.options,
        num_updates=config.training.num_steps,
        temperature=config.rollout.sampling.temperature,
        seed=config.seed,
        device="cuda" if config.cluster.gpus_per_learner_worker > 0 else "cpu",
        timeout_s=config.cluster.step_timeout_s,
    )


def _watch(config: RunConfig, controller: Any, progress: Progress, signals: SignalFlag) -> dict[str, Any]:
    """Show what the controller reports until its run is over."""
    import ray

    running = controller.run.remote()
    cursor, told = 0, False
    accuracy: dict[str, float] = {}
    first_step, first_time = None, time.monotonic()
    while True:
        if signals.received is not None and not told:
            name = signal.Signals(signals.received).name
            progress.event(f"{name}: finishing the step in progress, then a checkpoint")
            ray.get(controller.stop.remote(name))
            told = True
        finished, _ = ray.wait([running], timeout=0)
        entries, (done, total) = ray.get(controller.poll.remote(cursor, 0.0 if finished else POLL_S))
        cursor += len(entries)
        for entry in entries:
            if entry.kind == "event":
                progress.event(entry.text)
            elif entry.kind == "eval":
                accuracy = entry.values
                shown = "  ".join(f"{split} {value:.3f}" for split, value in accuracy.items())
                progress.event(f"clean held-out accuracy after step {entry.step}: {shown}")
            else:
                if first_step is None:
                    first_step, first_time = entry.step, time.monotonic()
                steps_done, steps_left = entry.step - first_step, config.training.num_steps - entry.step
                pace = (time.monotonic() - first_time) / steps_done if steps_done else float("nan")
                progress.step(
                    StepReport.from_metrics(
                        entry.step, config.training.num_steps, entry.values, pace * steps_left, accuracy
                    )
                )
        progress.rollouts(min(done, total), total)
        if finished and not entries:
            return dict(ray.get(running))


def _local(path: str) -> str:
    """An absolute path for a folder on this machine, since actors have their own working folder; a hub id as it is."""
    return os.path.abspath(path) if os.path.exists(path) else path


def _root_cause(error: BaseException) -> str:
    """The first cause in a chain of Ray's wrappers, on one line."""
    import ray

    cause = error
    while isinstance(cause, ray.exceptions.RayTaskError) and cause.cause is not None:
        cause = cause.cause
    return f"{type(cause).__name__}: {cause}"
