"""Rollout and reward workers without any learner, for commands that only sample and score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from actors.pools.reward_pool import RewardPool
from actors.pools.rollout_pool import RolloutPool
from cluster.config.run_config import RunConfig
from cluster.run.workers import Workers, create_workers


@contextmanager
def serving_workers(config: RunConfig, path: str) -> Iterator[Workers]:
    """Start the engines of a model folder, and end them; to be called within a session of Ray."""
    workers = create_workers(config, path, path, with_learners=False)
    try:
        ray.get([worker.start.remote() for worker in workers.rollouts], timeout=config.cluster.start_timeout_s)
        # From here on stop() asks the engines to shut down; one that is still starting would not answer.
        workers.engines_started = True
        yield workers
    finally:
        workers.stop(config.cluster.shutdown_timeout_s)


def serving_pools(
    config: RunConfig, rollouts: list[Any], rewards: list[Any], create: Any
) -> tuple[RolloutPool, RewardPool]:
    """Pools over such workers; to be made inside Ray, where actor calls can be awaited."""
    requests, reward = config.rollout.max_concurrent_requests, config.reward
    return (
        RolloutPool(rollouts, requests, config.recovery.request_timeout_s),
        RewardPool(rewards, create, reward.deadline_s, reward.error_reward, reward.max_concurrent_requests),
    )
