"""The reward models that a configuration names. Loads nothing heavy: `dvpo check` looks at them too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.workers.reward_model_worker import ServingOptions
from cluster.config.paths import absolute_model_path
from cluster.config.run_config import RunConfig
from rollout.component import ComponentSpec
from rollout.rewards.function import build_reward
from rollout.rewards.model import ModelReward

if TYPE_CHECKING:
    from learner.reward_model.model import Device


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One reward of type ``model``, and who serves it.

    Attributes:
        place: where it stands in the configuration, such as ``reward.functions.0``.
        options: validated.
        handles: actors of :class:`actors.workers.reward_model_worker.RewardModelWorker`; none before they are started.
    """

    place: str
    options: ModelReward.Config
    handles: tuple[Any, ...] = ()


def served_models(config: RunConfig) -> list[ServedModel]:
    """Every reward model among the functions and in gold, not started.

    Raises:
        UserError: an option of one is wrong.
    """
    groups: dict[str, Sequence[ComponentSpec]] = {"functions": config.reward.functions, "gold": config.reward.gold}
    places = [(f"reward.{name}.{i}", spec) for name, specs in groups.items() for i, spec in enumerate(specs)]
    return [ServedModel(place, build_reward(spec, place).config) for place, spec in places if spec.type == "model"]


def serving_options(config: RunConfig, options: ModelReward.Config, device: Device) -> ServingOptions:
    """What a worker needs to know."""
    return ServingOptions(
        path=absolute_model_path(options.path),
        max_tokens=options.max_tokens,
        batch_size=options.batch_size,
        max_wait_ms=options.max_wait_ms,
        dtype=options.dtype,
        device=device,
        timeout_s=config.reward.timeout_s,
    )
