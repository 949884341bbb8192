"""What one rank holds between updates: its models, its algorithm, its counters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from learner.algorithms.base import Algorithm
from learner.config import LearnerConfig
from learner.engine.engine import TrainEngine
from learner.models.lora.adapters import FrozenBase
from learner.models.policy import PolicyModel
from learner.plan import fixed_cost_of
from learner.update.collective import TorchCollective
from learner.update.limits import TraceLimits, UpdateLimits
from learner.update.schedule import learning_rate


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """What an update needs to know beside the models.

    Attributes:
        config: learning rates, schedule and the size of a micro-batch.
        num_updates: updates of the whole run, for the learning-rate schedule.
        temperature: of the distribution that responses are sampled from, > 0.
        seed: of the run.
        pad_token_id: token that fills up rows.
        limits: when an update must not happen.
        lr_scale: factor on both learning rates.
        traces: how much is recorded of single tokens.
    """

    config: LearnerConfig
    num_updates: int
    temperature: float = 1.0
    seed: int = 0
    pad_token_id: int = 0
    limits: UpdateLimits = field(default_factory=UpdateLimits)
    lr_scale: float = 1.0
    traces: TraceLimits = field(default_factory=TraceLimits)


class Rank:
    """Policy, critic, reference and algorithm of one rank, and how many optimiser steps they have taken.

    Raises:
        ValueError: the sampling temperature is 0.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        policy: TrainEngine,
        critic: TrainEngine | None,
        reference: PolicyModel | FrozenBase | None,
        world: TorchCollective,
        settings: UpdateSettings,
    ) -> None:
        if settings.temperature <= 0.0:
            raise ValueError(f"training needs a sampling temperature above 0, got {settings.temperature}")
        self.algorithm, self.policy, self.critic, self.reference = algorithm, policy, critic, reference
        self.world, self.settings = world, settings
        self.policy_steps = 0
        self.critic_steps = 0

    @property
    def packs_rows(self) -> bool:
        """Whether rows are trained on without padding."""
        return all(engine.module.packs_rows for engine in self._engines)

    @property
    def fixed_cost(self) -> int:
        """What a micro-batch costs beside its tokens; the same on every rank."""
        largest = max(engine.num_parameters for engine in self._engines)
        return fixed_cost_of(largest, self.world.device.type == "cuda")

    @property
    def attention_cost(self) -> float | None:
        """What attention costs beside the other arithmetic, for each token of a row's length; None for padded rows.

        In a forward pass a weight is two operations for each token, attention two for each layer, channel and token
        looked at (half of those before it, two products). Backward passes are twice either.
        """
        if not self.packs_rows:
            return None
        modules: list[Any] = [engine.module for engine in self._engines]
        num_parameters = sum(engine.num_parameters for engine in self._engines)
        return float(sum(module.attention_width for module in modules)) / max(1, num_parameters)

    @property
    def _engines(self) -> list[TrainEngine]:
        return [engine for engine in (self.policy, self.critic) if engine is not None]

    def learning_rates(self, num_minibatches: int) -> tuple[float, float]:
        """Of the next optimiser step of the policy and of the critic."""
        config = self.settings.config
        steps = self.algorithm.config.num_epochs * num_minibatches
        first = self.algorithm.critic_only_updates(self.settings.num_updates)
        policy_updates = self.settings.num_updates - max(first, config.critic_warmup_steps if self.critic else 0)
        schedule, scale = (config.lr_warmup_frac, config.lr_schedule), self.settings.lr_scale
        return (
            scale * learning_rate(self.policy_steps, max(1, policy_updates) * steps, config.policy_lr, *schedule),
            scale * learning_rate(self.critic_steps, self.settings.num_updates * steps, config.critic_lr, *schedule),
        )

    def state_dict(self) -> dict[str, int]:
        """Counters of optimiser steps, for the checkpoint."""
        return {"policy_steps": self.policy_steps, "critic_steps": self.critic_steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the counters."""
        self.policy_steps, self.critic_steps = state["policy_steps"], state["critic_steps"]
