"""Runs in processes that serve one test after the other: to start an engine takes longer than to train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.pools.reward_model_pool import RewardModelClient
from actors.workers.learner_worker import LearnerSpec
from cluster.config.run_config import RunConfig, load_config
from cluster.run.controller_actor import ControllerActor
from cluster.run.workers import Fleet, RewardFactory, create_fleet
from tests.integration.whole_runs import SMALL_ROLLOUT


class ControllerProcess:
    """Holds one controller after the other."""

    async def train(self, config: RunConfig, run_dir: str, model: str, fleet: Fleet) -> dict[str, Any]:
        """What :class:`ControllerActor` does with a run."""
        host = ControllerActor(config, run_dir, model, fleet)
        host.load_prompts()
        host.prepare(0, None, fleet.learners)
        return await host.run()


@dataclass(frozen=True)
class SharedRun:
    """One engine, one learner rank and one controller process.

    Attributes:
        model: what the engine has loaded.
    """

    model: str
    fleet: Fleet
    controller: Any

    def train(
        self, config_file: Path, run_dir: Path, scorers: Mapping[str, RewardModelClient] | None = None
    ) -> dict[str, Any]:
        """Train as the configuration says; the model may be a copy with other files beside the same weights.

        Args:
            config_file: its rollout section must be that of :data:`SMALL_ROLLOUT`; with environments, a conversation
                may be as long as prompt and response.
            run_dir: the run's folder.
            scorers: what answers for each reward model, by its place in the configuration.
        """
        config = load_config(config_file)
        factory = self.fleet.reward_factory
        rollout = config.rollout.model_copy(update={"max_conversation_tokens": None})
        assert (rollout, rollout.longest_tokens) == (factory.config.rollout, config.rollout.longest_tokens)
        (learner,) = self.fleet.learners
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
        own = RewardFactory(config, scorers or {})
        rewards = [] if config.reward == factory.config.reward else [own(0)]
        fleet = replace(self.fleet, rewards=rewards or self.fleet.rewards, reward_factory=own)
        try:
            found: dict[str, Any] = ray.get(
                self.controller.train.remote(config, str(run_dir), config.model.path, fleet), timeout=300
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
    config = RunConfig.model_validate(
        {
            "model": {"path": model},
            "rollout": SMALL_ROLLOUT,
            "reward": {"noise": noise},
            "data": {"task": {"type": "tests.integration.own_parts:AnyGame"}},
        }
    )
    fleet = create_fleet(config, model, model)
    controller = ray.remote(ControllerProcess).options(num_cpus=0).remote()
    try:
        ray.get([worker.start.remote() for worker in fleet.rollouts], timeout=300)
        fleet.engines_started = True
        yield SharedRun(model, fleet, controller)
    finally:
        fleet.stop(30.0)
        ray.kill(controller)
