"""Everything that takes a run, or a part of it, off its way, as one tree. The branch says what is done about it.

::

    Fault
    ├── Recoverable               new learner ranks and a new controller go on from the newest complete checkpoint
    │   ├── ControllerLost
    │   ├── LearnerLost           a learner rank died or does not answer
    │   ├── Stalled               nothing moved for recovery.stall_timeout_s
    │   ├── Abandoned             nobody asked for the controller for recovery.controller_lease_s
    │   ├── RollbackRequested     a guard wants to go back, with smaller learning rates
    │   ├── WorkerLost            see below: also recoverable where nothing replaces the worker
    │   └── DataLost
    ├── WorkerError               a call of a worker failed; by itself an error that the worker reported
    │   ├── WorkerLost            the worker is gone; a pool replaces it and asks another one
    │   │   ├── WorkerDied        its process, or that of its engine, has ended
    │   │   │   ├── HostLost      with all that ran on its host
    │   │   │   └── Unreachable   or so it seems: nobody knows yet whether the worker or its host has died
    │   │   └── WorkerHung        no answer in time
    │   └── DataLost              what the call needed was lost with another process; the worker is well
    ├── LearnerError              what a learner rank reports: rank, step and cause
    ├── RunOver                   new processes would not help: the run ends with the message
    │   ├── GuardStop
    │   ├── NoRoom
    │   ├── NoWorkerLeft
    │   ├── TooManyQuarantined
    │   ├── TooManyRewardErrors
    │   └── WorkersKeepDying
    ├── Quarantined               costs the trajectories of one prompt
    └── StopRequested             no fault, but the same way out: the run ends in order, with a checkpoint

Any other exception ends the run too. A mistake of the user's is a :class:`rollout.component.UserError` throughout.
"""

from __future__ import annotations

from typing import ClassVar


class Fault(RuntimeError):
    """Root of the tree.

    Attributes:
        code: what ends the message of a run that it has ended; its entry in ``docs/errors.md`` is the class's sentence.
    """

    code: ClassVar[str] = ""


class Recoverable(Fault):
    """The run can go on from its newest checkpoint in new processes."""


class ControllerLost(Recoverable):
    """The controller's process died, and with it the state of the loop."""

    code = "run-lost-controller"


class LearnerLost(Recoverable):
    """A learner rank died or does not answer; the message names it."""

    code = "run-lost-learner"


class Stalled(Recoverable):
    """Nothing moved for ``recovery.stall_timeout_s``; the message is the watchdog's report."""

    code = "run-stalled"


class Abandoned(Recoverable):
    """The controller stopped by itself, since the driver has not asked for it for ``recovery.controller_lease_s``."""

    code = "run-abandoned"


class RollbackRequested(Recoverable):
    """A guard wants the run to go back to the newest checkpoint with smaller learning rates."""

    code = "run-rollback"


class WorkerError(Fault):
    """A call of a worker failed. As it stands: the worker reported an error.

    Attributes:
        worker: its name.
        method: what it was asked to do.
        reason: what went wrong, root cause first.
    """

    code = "run-worker-failed"

    def __init__(self, worker: str, method: str, reason: str) -> None:
        super().__init__(worker, method, reason)
        self.worker, self.method, self.reason = worker, method, reason

    def __str__(self) -> str:
        return f"{self.worker} failed in {self.method}: {self.reason}"


class WorkerLost(WorkerError, Recoverable):
    """The worker cannot be used any more."""


class WorkerDied(WorkerLost):
    """The worker's process has ended, or that of the engine in it."""

    code = "run-worker-died"


class HostLost(WorkerDied):
    """The worker's whole host is gone, so that nothing which it was doing is to blame."""


class Unreachable(WorkerDied):
    """The worker cannot be reached any more; whether it has died, or its host, or neither is not known yet."""


class WorkerHung(WorkerLost):
    """The worker did not answer in time."""

    code = "run-worker-hung"


class DataLost(WorkerError, Recoverable):
    """What the call needed, or its answer, was lost with another process."""

    code = "run-data-lost"


class LearnerError(Fault):
    """A learner rank failed; the message names the rank and what it was doing."""

    code = "run-learner-failed"


class RunOver(Fault):
    """The run ends with this message: what went wrong would do so again in new processes."""


class GuardStop(RunOver):
    """A guard whose action is ``stop`` has fired."""

    code = "run-guard-stop"


class NoRoom(RunOver):
    """The cluster had no room for the workers that the run needs, for ``recovery.resource_timeout_s``."""


class NoWorkerLeft(RunOver):
    """All workers of a pool are lost, and it replaces none."""

    code = "run-no-worker-left"


class TooManyQuarantined(RunOver):
    """More prompts than ``recovery.max_quarantined_prompts`` had to be set aside."""

    code = "run-too-many-quarantined"


class TooManyRewardErrors(RunOver):
    """The reward failed on more than the configured share of a step's trajectories."""

    code = "run-too-many-reward-errors"


class WorkersKeepDying(RunOver):
    """A worker and those in its place were lost more than ``recovery.max_worker_losses`` times in a row."""

    code = "run-workers-keep-dying"


class Quarantined(Fault):
    """A prompt killed or wedged rollout workers twice, so its trajectories are not asked for any more."""


class StopRequested(Fault):
    """Somebody asked the run to end early."""
