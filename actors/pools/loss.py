"""Rollout workers that are lost: how that is recognised, who hears of it, and how they are replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from actors.pools.ranks import failure

ENGINE_DEAD = "EngineDeadError"
"""vLLM's exception for an engine whose process has ended. Named, since vLLM is not imported here."""


@dataclass(frozen=True, slots=True)
class Replacing:
    """How lost workers are replaced.

    Attributes:
        create: makes the actor of a worker by its index.
        start_timeout_s: longest time until its engine serves, in seconds.
        max_failures: losses in a row, with no request finished in between, after which the run is given up.
    """

    create: Callable[[int], Any]
    start_timeout_s: float
    max_failures: int


class PoolObserver:
    """Hears what happens to workers and requests; does nothing by itself."""

    def worker_event(self, worker: str, text: str) -> None:
        """Something noteworthy happened to a worker."""

    def worker_started(self, worker: str, handle: Any) -> None:
        """A replacement serves."""

    def request_reissued(self, trajectory_id: str, cause: str) -> None:
        """A request was lost with its worker and is asked for again."""

    def prompt_quarantined(self, prompt_id: str, reason: str) -> None:
        """A prompt is not asked for any more."""


def is_loss(error: BaseException) -> bool:
    """Whether the worker is gone (or hung), rather than the request wrong."""
    if isinstance(error, RayTaskError):
        return type(error.cause).__name__ == ENGINE_DEAD
    return isinstance(error, RayActorError | TimeoutError)


def loss_cause(worker: str, method: str, error: BaseException, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"{worker} failed in {method}: no answer within {timeout_s:g} s"
    return str(failure(worker, method, error))
