"""From a configuration to the objects that it names: task, rewards, noise models, algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cluster.config.run_config import AlgorithmSpec, RunConfig
from learner.algorithms import catalogue
from learner.algorithms.presets import PRESETS
from rollout.component import Component, ComponentSpec, UserError, build
from rollout.noise import NOISES
from rollout.noise.base import RewardNoise
from rollout.noise.chain import NoiseChain
from rollout.noise.delay import Delay
from rollout.rewards import function
from rollout.rewards.base import Reward
from rollout.tasks import TASKS
from rollout.tasks.base import Task

if TYPE_CHECKING:  # which loads torch
    from learner.algorithms.base import Algorithm


@dataclass(frozen=True, slots=True)
class Components:
    """The objects that a configuration names."""

    task: Task
    rewards: tuple[Reward, ...]
    gold: tuple[Reward, ...]
    noise: tuple[RewardNoise, ...]
    algorithm: Algorithm


def build_components(config: RunConfig) -> Components:
    """All components of ``config``.

    Raises:
        UserError: one cannot be found or imported, or an option is wrong.
    """
    return Components(
        task=build_task(config),
        rewards=build_rewards(config, "functions"),
        gold=build_rewards(config, "gold"),
        noise=tuple(build_noise(config, index) for index in range(len(config.reward.noise))),
        algorithm=build_algorithm(config),
    )


def build_task(config: RunConfig) -> Task:
    """The task of ``data.task``."""
    task: Task = build(config.data.task, TASKS, Task, "data.task")
    return task


def build_rewards(config: RunConfig, group: Literal["functions", "gold"]) -> tuple[Reward, ...]:
    """All of ``reward.functions`` or of ``reward.gold``."""
    return tuple(build_reward(config, group, index) for index in range(len(getattr(config.reward, group))))


def build_reward(config: RunConfig, group: Literal["functions", "gold"], index: int) -> Reward:
    """One of ``reward.functions`` or of ``reward.gold``."""
    return function.build_reward(getattr(config.reward, group)[index], f"reward.{group}.{index}")


def build_noise(config: RunConfig, index: int) -> RewardNoise:
    """One of ``reward.noise``."""
    noise: RewardNoise = build(config.reward.noise[index], NOISES, RewardNoise, f"reward.noise.{index}")
    return noise


def build_noise_chain(config: RunConfig) -> NoiseChain:
    """All of ``reward.noise`` in their order."""
    models = [build_noise(config, index) for index in range(len(config.reward.noise))]
    longest = sum(model.config.max_updates for model in models if isinstance(model, Delay))
    if longest > config.training.max_staleness:
        raise UserError(
            f"reward.noise: scores may be {longest} updates late, and a trajectory at most training.max_staleness = "
            f"{config.training.max_staleness} updates old; raise that or lower max_updates"
        )
    return NoiseChain(models, config.seed, config.training.samples_per_prompt)


def build_algorithm(config: RunConfig) -> Algorithm:
    """The algorithm of ``algorithm``."""
    return catalogue.build_algorithm(config.algorithm.name, config.algorithm.options, "algorithm")


def resolve(config: RunConfig) -> RunConfig:
    """The configuration with every option of every component spelled out and presets replaced by what they stand for.

    It describes the same run, also under a later version whose defaults differ.

    Raises:
        UserError: a component is wrong.
    """
    parts = build_components(config)
    algorithm = parts.algorithm
    name = config.algorithm.type if config.algorithm.type and ":" in config.algorithm.type else algorithm_type(config)
    options = algorithm.config.model_dump(mode="json")
    corrections = map(_spelled_out, algorithm.config.reward_correction, algorithm.corrections)
    options["reward_correction"] = [correction.model_dump(mode="json") for correction in corrections]
    if algorithm.objective is not None:
        spec = ComponentSpec.model_validate(options["policy_objective"])
        options["policy_objective"] = _spelled_out(spec, algorithm.objective).model_dump(mode="json")
    noise = tuple(map(_spelled_out, config.reward.noise, parts.noise))
    rewards = tuple(map(_spelled_out, config.reward.functions, parts.rewards))
    gold = tuple(map(_spelled_out, config.reward.gold, parts.gold))
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"task": _spelled_out(config.data.task, parts.task)}),
            "reward": config.reward.model_copy(update={"functions": rewards, "gold": gold, "noise": noise}),
            "algorithm": AlgorithmSpec(type=name, **options),
        }
    )


def algorithm_type(config: RunConfig) -> str:
    """The type behind the algorithm's name, which may be that of a preset."""
    name = config.algorithm.name
    return PRESETS[name].type if name in PRESETS else name


def _spelled_out(spec: ComponentSpec, component: Component) -> ComponentSpec:
    return ComponentSpec(type=spec.type, **component.config.model_dump(mode="json"))
