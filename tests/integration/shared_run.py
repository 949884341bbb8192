"""Runs in processes that serve one test after the other: to start an engine takes longer than to train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.workers.learner_worker import LearnerSpec
from cluster.config.run_config import RunConfig, load_config
from cluster.run.controller_actor import Cast, ControllerActor
from cluster.run.workers import RewardFactory, Workers, create_workers
from tests.integration.whole_runs import SMALL_ROLLOUT


class ControllerProcess:
    """Holds one controller after the other."""

    async def train(self, config: RunConfig, run_dir: str, model: str, cast: Cast) -> dict[str, Any]:
        """What :class:`ControllerActor` does with a run."""
        host = ControllerActor(config, run_dir, model, cast)
        host.prepare(0, None)
        return await host.run()


@dataclass(frozen=True)
class SharedRun:
    """One engine, one learner rank and one controller process.

    Attributes:
        model: what the engine has loaded.
    """

    model: str
    workers: Workers
    controller: Any

    def train(self, config_file: Path, run_dir: Path) -> dict[str, Any]:
        """Train as the configuration says; its rollout section must be that of :data:`SMALL_ROLLOUT`."""
        config = load_config(config_file)
        assert config.rollout == self.workers.config.rollout
        (learner,) = self.workers.learners
        host, port = ray.get(learner.address.remote())
        spec = LearnerSpec(
            config.model,
            config.learner,
            config.algorithm.name,
            config.algorithm.options,
            config.training.num_steps,
            limits=config.guards.update_limits(),
        )
        ray.get(learner.setup.remote(0, 1, host, port, spec), timeout=120)
        factory = self.workers.reward_factory
        rewards = [] if config.reward == factory.config.reward else [RewardFactory(config, {})(0)]
        cast = Cast(
            self.workers.rollouts,
            rewards or self.workers.rewards,
            self.workers.learners,
            self.workers.rollout_factory,
            replace(factory, config=config),
        )
        try:
            found: dict[str, Any] = ray.get(
                self.controller.train.remote(config, str(run_dir), self.model, cast), timeout=300
            )
            return found
        finally:
            ray.get(learner.shutdown.remote(), timeout=60)
            for reward in rewards:
                with suppress(Exception):
                    ray.kill(reward)


@pytest.fixture(scope="session")
def shared_run(ray_local: None, tiny_model: Path) -> Iterator[SharedRun]:
    model = str(tiny_model)
    noise = [{"type": "symmetric_flip", "p": 0.3}]
    config = RunConfig.model_validate({"model": {"path": model}, "rollout": SMALL_ROLLOUT, "reward": {"noise": noise}})
    workers = create_workers(config, model, model)
    controller = ray.remote(ControllerProcess).options(num_cpus=0).remote()
    try:
        ray.get([worker.start.remote() for worker in workers.rollouts], timeout=300)
        workers.engines_started = True
        yield SharedRun(model, workers, controller)
    finally:
        workers.stop(30.0)
        ray.kill(controller)
