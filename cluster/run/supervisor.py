"""Keeps a run going: learner and controller are started, and started again from the newest checkpoint when one is lost.

The controller outlives the learner, rollout workers and reward actors outlive both; it replaces those that are lost.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from actors.faults import (
    ControllerLost,
    DataLost,
    Fault,
    LearnerLost,
    Recoverable,
    RollbackRequested,
    Stalled,
    WorkerLost,
)
from actors.ledger.fence import take_over
from actors.meters import make_event_counter
from actors.pools.loss import controller_fault, end
from actors.processes import stack_dump
from actors.processes.lease import Lease
from actors.recording.event_log import EventLog, Level
from actors.recording.journal import Entry
from cluster.config.run_config import RunConfig
from cluster.display.pace import Pace
from cluster.display.progress import Progress
from cluster.display.report import accuracies, intervals, with_interval
from cluster.run.assembly import LEDGER
from cluster.run.controller_actor import create_controller
from cluster.run.places.waiting import wait_for
from cluster.run.rehousing import NewPlaces
from cluster.run.resume import ResumePoint, newest_resume_point
from cluster.run.signals import SignalFlag
from cluster.run.workers import Fleet, learner_spec
from learner.storage.folders import set_aside_newer
from rollout.component import UserError
from rollout.component.errors import coded

POLL_S = 1.0
LOOK_S = 0.2
"""Seconds between two looks at the signals."""
ANSWER_S = 60.0
"""Longest wait for a controller that stands still, in seconds."""


class Supervisor:
    """Runs one attempt after another until one ends in order.

    Args:
        config: the run's configuration.
        run_dir: absolute path of the run's folder.
        fleet: the run's actors, just created.
        progress: where everything is shown.
        signals: looked at between two short waits.
    """

    def __init__(self, config: RunConfig, run_dir: Path, fleet: Fleet, progress: Progress, signals: SignalFlag) -> None:
        self._config, self._run_dir, self._fleet = config, run_dir, fleet
        self._progress, self._signals = progress, signals
        self._events = EventLog(run_dir / "events.jsonl")
        self._meters = make_event_counter(config.name)
        self._places = NewPlaces(config, run_dir, fleet, signals, lambda text: self.tell("restart", text, "warning"))
        self._controller: Any = None
        self._step = 0
        self._started = False
        self._lease: Lease | None = None
        self._lr_scale, self._num_rollbacks = 1.0, 0

    def run(self, point: ResumePoint | None, opening: Sequence[str] = ()) -> dict[str, Any]:
        """Train to the end; returns what :meth:`cluster.run.controller_actor.ControllerActor.run` does.

        Args:
            point: the checkpoint to begin with, or None.
            opening: what there is to say about it.

        Raises:
            Interrupted: a signal came while processes were starting.
            UserError: before the first step, something that only the user can put right, such as a reward that workers
                cannot make.
            RuntimeError: something that new processes cannot put right, or they were lost again and again.
        """
        for line in opening:
            self.tell("resume", line)
        num_restarts, furthest = 0, -1
        while True:
            self._step = point.step if point else 0
            try:
                return self._attempt(point, is_first=furthest < 0)
            except (RayError, Fault) as error:
                fault = controller_fault(error)
                # Before its first step a run cannot begin as it is configured; later (a full disk) it has failed.
                if isinstance(fault, UserError) and self._step == (point.step if point else 0):
                    raise UserError(str(fault)) from error
                if not self._may_go_on(fault):
                    raise RuntimeError(_in_words(fault)) from error
                num_restarts = 1 if self._step > furthest else num_restarts + 1
                if num_restarts > self._config.recovery.max_restarts:
                    since = f"{num_restarts - 1} restarts that got no further than step {furthest}"
                    given_up = f"{fault}; given up after {since} (recovery.max_restarts)"
                    raise RuntimeError(coded(given_up, _code(fault))) from error
                self._note_rollback(fault)
                furthest = max(furthest, self._step)
                who = self._clear_up(fault)
                self._fleet.replace_learners()
                self._places.wait(fault, self._step, self._controller)
                point = newest_resume_point(self._run_dir)
                where = f"step {point.step}" if point else "the beginning"
                self.tell("restart", f"{fault}; {who} from {where}", "warning")
                for skipped in point.skipped if point else ():
                    self.tell("restart", f"skipped {skipped}", "warning")

    def close(self, timeout_s: float) -> None:
        """Let the controller shut the engines down, and end it."""
        self._end_controller(timeout_s)

    def _clear_up(self, fault: BaseException) -> str:
        """End what does not go on after a fault; returns who starts again, in words.

        A controller whose learner is lost is well: it stays, with its pools, so rollout and reward workers stay too.
        """
        kept = _is_elsewhere(fault) and self._is_held()
        if not kept:
            self._end_controller(0.0)
        take_over(self._run_dir / LEDGER)  # whatever lives on of the former attempt changes nothing now
        self._wait_for_the_lease(fault)
        if kept:
            return "the learner starts again, controller and workers stay,"
        self._fleet.rooms.release(all_of_them=False)  # of workers that the controller has made, which end with it
        return "learner and controller start again"

    def _is_held(self) -> bool:
        """Whether the controller makes no new workers from here on; False if it does not answer."""
        try:
            ray.get(self._controller.hold.remote(), timeout=ANSWER_S)
        except RayError:
            return False
        return True

    def _attempt(self, point: ResumePoint | None, is_first: bool) -> dict[str, Any]:
        """Start what has to be started, and follow the controller until its run is over."""
        begin = time.monotonic()
        if point is not None:  # or the abandoned branch would be taken for the newest one day
            set_aside_newer(self._run_dir / "checkpoints", point.step)
        # First of all, since reading prompts and loading models use different processors.
        prompts = {}
        if self._controller is None:
            self._controller = create_controller(self._config, self._run_dir, self._fleet)
            prompts = {"controller": self._controller.load_prompts.remote()}
        state = self._start_workers(point, is_first)
        deadline = time.monotonic() + self._config.cluster.start_timeout_s
        wait_for(prompts, "load_prompts", deadline, self._signals)
        step, learners = point.step if point else 0, self._fleet.learners
        prepared = {"controller": self._controller.prepare.remote(step, state, learners)}
        is_apart = wait_for(prepared, "prepare", deadline, self._signals)["controller"]
        self._lease = Lease(self._config.recovery.controller_lease_s) if is_apart else None
        self._started = True
        self.tell("start", f"everything started in {time.monotonic() - begin:.1f} s")
        return self._follow()

    def _start_workers(self, point: ResumePoint | None, with_engines: bool) -> dict[str, Any] | None:
        """Start learner ranks, and engines beside them; returns the controller's part of the checkpoint, if any."""
        fleet, deadline = self._fleet, time.monotonic() + self._config.cluster.start_timeout_s
        engines = {}
        if with_engines:
            engines = {f"rollout-{i}": worker.start.remote() for i, worker in enumerate(fleet.rollouts)}
        address = {"learner-0": fleet.learners[0].address.remote()}
        host, port = wait_for(address, "address", deadline, self._signals)["learner-0"]
        world, spec = len(fleet.learners), learner_spec(self._config, self._lr_scale)
        ranks = {
            f"learner-{rank}": worker.setup.remote(rank, world, host, port, spec)
            for rank, worker in enumerate(fleet.learners)
        }
        wait_for(ranks, "setup", deadline, self._signals)
        self.tell("start", "learner ready")
        if with_engines:
            wait_for(engines, "start", deadline, self._signals)
            fleet.engines_started = True
            self.tell("start", f"{len(engines)} rollout engine{'s' if len(engines) > 1 else ''} ready")
        if point is None:
            return None
        loads = {f"learner-{r}": worker.load.remote(str(point.path)) for r, worker in enumerate(fleet.learners)}
        return dict(wait_for(loads, "load", deadline, self._signals)["learner-0"])

    def _follow(self) -> dict[str, Any]:
        """Show what the controller reports until its run is over."""
        running = self._controller.run.remote()
        cursor, told = 0, False
        pace = Pace(self._config.training.num_steps)
        answer_s = self._config.recovery.stall_timeout_s
        while True:
            if self._signals.received is not None and not told:
                name = signal.Signals(self._signals.received).name
                self.tell("stop", f"{name}: finishing the step in progress, then a checkpoint")
                ray.get(self._controller.stop.remote(name), timeout=answer_s)
                told = True
            finished, _ = ray.wait([running], timeout=0)
            poll = self._controller.poll.remote(cursor, 0.0 if finished else POLL_S)
            try:
                entries, (done, total) = ray.get(poll, timeout=answer_s)
            except GetTimeoutError as error:
                dumps = "\n".join(stack_dump.collect_here(self._run_dir / "stacks"))
                raise Stalled(f"the controller has not answered for {answer_s:g} s; stack dumps:\n{dumps}") from error
            if self._lease is not None:
                self._lease.renew()
            cursor += len(entries)
            for entry in entries:
                self._show(entry, pace)
            self._progress.rollouts(min(done, total), total)
            if finished and not entries:
                return dict(ray.get(running))

    def _show(self, entry: Entry, pace: Pace) -> None:
        if entry.kind == "event":
            self._progress.event(entry.text)
        elif entry.kind == "eval":
            pace.evaluation, ends = entry.values, intervals(entry.values)
            shown = "  ".join(
                f"{split} {with_interval(value, ends.get(f'eval/{split}/accuracy'))}"
                for split, value in accuracies(entry.values).items()
            )
            self._progress.event(f"clean held-out accuracy after step {entry.step}: {shown}")
        else:
            self._step = entry.step
            self._progress.step(pace.report(entry.step, entry.values))

    def _end_controller(self, timeout_s: float) -> None:
        """End the controller; with a timeout it shuts the engines down first."""
        controller, self._controller = self._controller, None
        if controller is None:
            return
        if timeout_s:
            with suppress(Exception):  # what does not answer is killed
                ray.get(controller.close.remote(timeout_s), timeout=2 * timeout_s)
        end(controller)

    def _may_go_on(self, fault: BaseException) -> bool:
        """Whether new processes can put it right, and are to: before the first of them had started they cannot."""
        if isinstance(fault, Stalled) and self._config.recovery.on_stall == "stop":
            return False
        return self._started and isinstance(fault, Recoverable)

    def _wait_for_the_lease(self, fault: BaseException) -> None:
        """Until a controller of which nothing is heard, on another host, must have stopped by itself."""
        lease, self._lease = self._lease, None
        if lease is None or not lease.left_s or not isinstance(fault, ControllerLost | Stalled):
            return
        self.tell(
            "restart",
            f"{fault}; in case it is only cut off, it has {lease.left_s:.0f} s to stop by itself "
            "(recovery.controller_lease_s)",
            "warning",
        )
        while lease.left_s:
            self._signals.check()
            time.sleep(min(LOOK_S, lease.left_s))

    def _note_rollback(self, fault: BaseException) -> None:
        if not isinstance(fault, RollbackRequested):
            return
        guards = self._config.guards
        self._num_rollbacks += 1
        if self._num_rollbacks > guards.max_rollbacks:
            raise RuntimeError(
                f"{_in_words(fault)}; given up after {guards.max_rollbacks} rollbacks (guards.max_rollbacks)"
            )
        self._lr_scale *= guards.rollback_lr_factor
        self.tell("rollback", f"learning rates are multiplied by {self._lr_scale:g} from here on", "warning")

    def tell(self, kind: str, text: str, level: Level = "info") -> None:
        """Show a line, and write it to events.jsonl."""
        self._progress.event(text)
        self._meters.event(kind, level)
        self._events.write(kind, self._step, text, level)


def _is_elsewhere(fault: BaseException) -> bool:
    """Whether a fault is one of others than the controller, which has told of it and has ended its attempt."""
    if isinstance(fault, WorkerLost | DataLost):
        return fault.worker != "controller"
    return isinstance(fault, LearnerLost | RollbackRequested)


def _in_words(error: BaseException) -> str:
    return str(error) if isinstance(error, UserError) else coded(f"{type(error).__name__}: {error}", _code(error))


def _code(error: BaseException) -> str:
    return error.code if isinstance(error, Fault | UserError) else ""
