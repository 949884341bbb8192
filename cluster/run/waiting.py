"""Waiting for several actors at start: one deadline, an open eye on signals, and the name of the one that failed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError

from actors.pools.loss import failure
from cluster.run.signals import SignalFlag

LOOK_UP_S = 0.5


def wait_for(references: Mapping[str, Any], method: str, deadline: float, signals: SignalFlag) -> dict[str, Any]:
    """Results by worker name.

    Args:
        references: worker name -> reference of the result.
        method: what the workers were asked to do, for messages.
        deadline: on the monotonic clock.
        signals: looked at twice a second.

    Raises:
        Interrupted: a signal came.
        TimeoutError: some did not answer in time; they are named.
        WorkerError, UserError: one failed, as soon as it did.
    """
    names = {reference: name for name, reference in references.items()}
    results: dict[str, Any] = {}
    pending = list(names)
    while pending:
        signals.check()
        ready, pending = ray.wait(pending, timeout=LOOK_UP_S)
        for reference in ready:
            try:
                results[names[reference]] = ray.get(reference)
            except RayError as error:
                raise failure(names[reference], method, error) from error
        if pending and time.monotonic() > deadline:
            late = ", ".join(names[reference] for reference in pending)
            raise TimeoutError(
                f"{late} not ready in {method} within cluster.start_timeout_s; the logs folder has what they printed"
            )
    return results
