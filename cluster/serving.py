"""Rollout and reward workers without any learner, for commands that only sample and score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster.config import RunConfig
from cluster.workers import Workers, create_workers


@contextmanager
def serving_workers(config: RunConfig, path: str) -> Iterator[Workers]:
    """Start the engines of a model folder, and end them; to be called within a session of Ray."""
    import ray

    workers = create_workers(config, path, path, with_learners=False)
    try:
        ray.get([worker.start.remote() for worker in workers.rollouts], timeout=config.cluster.start_timeout_s)
        workers.engines_started = True
        yield workers
    finally:
        workers.stop(config.cluster.shutdown_timeout_s)
