"""From a configuration to the objects that it names: task, rewards, noise models, algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.config.run_config import AlgorithmSpec, RunConfig
from learner.algorithms import catalogue
from learner.algorithms.presets import PRESETS
from rollout.component import Component, ComponentSpec, build
from rollout.component.mistakes import Conflict
from rollout.noise import NOISES
from rollout.noise.base import RewardNoise
from rollout.noise.chain import NoiseChain
from rollout.noise.delay import Delay
from rollout.rewards.base import Reward
from rollout.rewards.function import build_reward
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
    rewards = [build_reward(spec, place) for place, spec in reward_specs(config).items()]
    num_functions = len(config.reward.functions)
    return Components(
        task=build_task(config),
        rewards=tuple(rewards[:num_functions]),
        gold=tuple(rewards[num_functions:]),
        noise=tuple(build_noise(config, index) for index in range(len(config.reward.noise))),
        algorithm=build_algorithm(config),
    )


def build_task(config: RunConfig) -> Task:
    """The task of ``data.task``."""
    task: Task = build(config.data.task, TASKS, Task, "data.task")
    return task


def reward_specs(config: RunConfig) -> dict[str, ComponentSpec]:
    """Every reward by its place (``reward.functions.0``, ``reward.gold.0``, ...): the functions first, then gold."""
    groups = {"functions": config.reward.functions, "gold": config.reward.gold}
    return {f"reward.{name}.{index}": spec for name, specs in groups.items() for index, spec in enumerate(specs)}


def build_noise(config: RunConfig, index: int) -> RewardNoise:
    """One of ``reward.noise``."""
    noise: RewardNoise = build(config.reward.noise[index], NOISES, RewardNoise, f"reward.noise.{index}")
    return noise


def build_noise_chain(config: RunConfig) -> NoiseChain:
    """All of ``reward.noise`` in their order."""
    models = [build_noise(config, index) for index in range(len(config.reward.noise))]
    longest = sum(model.config.max_updates for model in models if isinstance(model, Delay))
    if longest > config.training.max_staleness:
        raise Conflict(
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
    # A preset becomes the type it stands for; a class of the user's keeps its import path.
    name = config.algorithm.type if config.algorithm.type and ":" in config.algorithm.type else algorithm_type(config)
    options = algorithm.config.model_dump(mode="json")
    # Of components within the algorithm its options hold only what was written, so the rest comes from the objects.
    for option, pieces in algorithm.pieces().items():
        written = getattr(algorithm.config, option)
        specs = [_spelled_out(*pair).model_dump(mode="json") for pair in zip(_listed(written), pieces, strict=True)]
        options[option] = specs if isinstance(written, tuple) else specs[0]
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


def _listed(written: Any) -> tuple[ComponentSpec, ...]:
    """One component or several, as a tuple."""
    return written if isinstance(written, tuple) else (written,)


def _spelled_out(spec: ComponentSpec, component: Component) -> ComponentSpec:
    return ComponentSpec(type=spec.type, **component.config.model_dump(mode="json"))
