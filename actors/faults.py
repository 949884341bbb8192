"""What can go wrong in a run, by what is done about it.

``Recoverable`` faults are answered by the driver: new learner ranks and a new controller go on from the newest complete
checkpoint. Every other exception ends the run with its message.
"""

from __future__ import annotations


class Recoverable(RuntimeError):
    """The run can go on from its newest checkpoint in new processes."""


class LearnerLost(Recoverable):
    """A learner rank died or does not answer; the message names it."""


class Stalled(Recoverable):
    """Nothing moved for ``recovery.stall_timeout_s``; the message is the watchdog's report."""


class RollbackRequested(Recoverable):
    """A guard wants the run to go back to the newest checkpoint with smaller learning rates."""


class GuardStop(RuntimeError):
    """A guard whose action is ``stop`` has fired."""


class WorkersKeepDying(RuntimeError):
    """Rollout workers died again and again and no request was finished in between."""


class TooManyQuarantined(RuntimeError):
    """More prompts than ``recovery.max_quarantined_prompts`` had to be set aside."""


class Quarantined(Exception):
    """A prompt killed or wedged rollout workers twice, so its trajectories are not asked for any more."""
