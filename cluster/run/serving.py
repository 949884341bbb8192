"""Rollout and reward workers without any learner, for commands that only sample and score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from actors.pools.reward_pool import RewardPool
from actors.pools.rollout_pool import RolloutPool
from cluster.config.run_config import RunConfig
from cluster.run.workers import Fleet, create_fleet


@contextmanager
def serving_fleet(config: RunConfig, path: str) -> Iterator[Fleet]:
    """Start the engines of a model folder, and end them; to be called within a session of Ray."""
    fleet = create_fleet(config, path, path, with_learners=False)
    try:
        ray.get([worker.start.remote() for worker in fleet.rollouts], timeout=config.cluster.start_timeout_s)
        # From here on stop() asks the engines to shut down; one that is still starting would not answer.
        fleet.engines_started = True
        yield fleet
    finally:
        fleet.stop(config.cluster.shutdown_timeout_s)


def serving_pools(config: RunConfig, fleet: Fleet) -> tuple[RolloutPool, RewardPool]:
    """Pools over such workers; to be made inside Ray, where actor calls can be awaited."""
    rollouts = RolloutPool(
        workers=fleet.rollouts,
        max_requests_per_worker=config.rollout.max_concurrent_requests,
        request_timeout_s=config.recovery.request_timeout_s,
    )
    rewards = RewardPool(
        workers=fleet.rewards,
        create=fleet.reward_factory,
        timeout_s=config.reward.deadline_s,
        error_reward=config.reward.error_reward,
        max_requests_per_worker=config.reward.max_concurrent_requests,
        recovery=config.recovery,
    )
    return rollouts, rewards
