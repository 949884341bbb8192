"""Makes the controller's actor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from cluster.paths import absolute_model_path
from cluster.workers import Workers


def create_controller(config: RunConfig, run_dir: Path, workers: Workers) -> Any:
    """The controller's actor, see :class:`cluster.controller_host.ControllerHost`."""
    import ray

    from cluster.controller_host import Cast, ControllerHost

    cast = Cast(workers.rollouts, workers.rewards, workers.learners, workers.rollout_factory, workers.reward_factory)
    actor = ray.remote(ControllerHost).options(num_cpus=0, max_concurrency=1000)
    return actor.remote(config, str(run_dir), absolute_model_path(config.model.path), cast)
