"""How long the rest of a run will take, from the steps seen so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from cluster.display.report import StepReport


class Pace:
    """Counts from the first step that it is told of, which after a restart is a later one of the run.

    Args:
        num_steps: of the whole run.
        now: clock in seconds that never goes back.
    """

    def __init__(self, num_steps: int, now: Callable[[], float] = time.monotonic) -> None:
        self._num_steps, self._now = num_steps, now
        self._first_step: int | None = None
        self._first_time = math.nan
        self.evaluation: Mapping[str, float] = {}

    def report(self, step: int, metrics: Mapping[str, float]) -> StepReport:
        """One finished step, for the display."""
        if self._first_step is None:
            self._first_step, self._first_time = step, self._now()
        done = step - self._first_step
        # The first step can only say how long it took itself; from the second on, evaluations and saves between steps
        # count too.
        step_s = (self._now() - self._first_time) / done if done else metrics.get("time/step_s", math.nan)
        left = self._num_steps - step
        return StepReport.from_metrics(step, self._num_steps, metrics, step_s * left if left else 0.0, self.evaluation)
