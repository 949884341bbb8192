"""The reward models that a configuration names: their options, and what answers for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.config.paths import absolute_model_path
from cluster.config.run_config import RunConfig
from rollout.component import ComponentSpec

if TYPE_CHECKING:
    from actors.pools.reward_model_pool import RewardModelClient
    from actors.workers.reward_model_worker import ServingOptions
    from learner.reward_model.model import Device
    from rollout.rewards.model import ModelReward


@dataclass(frozen=True, slots=True)
class RewardModelSpec:
    """One reward of type ``model``.

    Attributes:
        place: where it stands in the configuration, such as ``reward.functions.0``.
        options: validated.
    """

    place: str
    options: ModelReward.Config


def reward_model_specs(config: RunConfig) -> list[RewardModelSpec]:
    """Every reward model among the functions and in gold.

    Raises:
        UserError: an option of one is wrong.
    """
    from rollout.rewards.function import build_reward

    groups: dict[str, Sequence[ComponentSpec]] = {"functions": config.reward.functions, "gold": config.reward.gold}
    places = [(f"reward.{name}.{i}", spec) for name, specs in groups.items() for i, spec in enumerate(specs)]
    return [RewardModelSpec(place, build_reward(spec, place).config) for place, spec in places if spec.type == "model"]


def serving_options(config: RunConfig, options: ModelReward.Config, device: Device) -> ServingOptions:
    """What a worker needs to know."""
    from actors.workers.reward_model_worker import ServingOptions

    return ServingOptions(
        path=absolute_model_path(options.path),
        max_tokens=options.max_tokens,
        batch_size=options.batch_size,
        max_wait_ms=options.max_wait_ms,
        dtype=options.dtype,
        device=device,
        timeout_s=config.reward.timeout_s,
    )


def clients(config: RunConfig, actors: Sequence[Any]) -> dict[str, RewardModelClient]:
    """Scorers by place.

    Args:
        actors: handles of all workers of all models, in the order of :func:`reward_model_specs`.
    """
    from actors.pools.reward_model_pool import RewardModelClient

    found, rest = {}, list(actors)
    for spec in reward_model_specs(config):
        found[spec.place] = RewardModelClient(rest[: spec.options.num_workers])
        del rest[: spec.options.num_workers]
    return found
