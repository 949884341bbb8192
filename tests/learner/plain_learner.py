"""A learner on plain torch and made-up trajectories, for tests that need neither DeepSpeed nor a sampler."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learner.algorithms.catalogue import build_algorithm
from learner.checkpoint.snapshot import take_snapshot
from learner.config import LearnerConfig, LoraOptions, ModelConfig
from learner.engine.engine import WeightForm
from learner.engine.gradient_watch import GradientWatch
from learner.engine.memory_copy import copy_to_memory
from learner.engine.state_copy import StateCopy
from learner.engine.weight_chunks import shapes_of, weight_chunks
from learner.models.critic import critic_over_policy, load_critic
from learner.models.lora.adapters import FrozenBase
from learner.models.policy import PolicyModel, load_policy, load_reference
from learner.storage.manifest import begin, checkpoint_step, commit
from learner.update.collective import TorchCollective
from learner.update.learner import Learner
from learner.update.rank import UpdateSettings
from rollout.trajectory import FinishReason, ScoredTrajectory, Trajectory

CPU = torch.device("cpu")


class TorchEngine:
    """The obvious engine: AdamW and gradient clipping of torch, in one process."""

    def __init__(self, module: nn.Module, config: LearnerConfig) -> None:
        self.module, self.config = module, config
        self.num_parameters = sum(p.numel() for p in module.parameters())
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in module.parameters() if parameter.requires_grad],
            lr=0.0,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_eps,
            weight_decay=config.weight_decay,
        )
        self.num_backwards = 0
        self.watch = GradientWatch(module)

    def forward(self, **inputs: object) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.module(**inputs)
        return outputs

    def backward(self, loss: Tensor, last: bool) -> None:
        self.num_backwards += 1
        loss.backward()

    def grad_bound(self) -> Tensor:
        return self.watch.take()

    def discard(self) -> None:
        self.optimizer.zero_grad()

    def step(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), self.config.max_grad_norm or math.inf))
        if not math.isfinite(norm):
            self.optimizer.zero_grad()
            raise FloatingPointError(f"the gradient's norm is {norm}")
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def full_weights(self, form: WeightForm | None = None, trained_only: bool = False) -> Iterator[tuple[str, Tensor]]:
        for chunk in weight_chunks(self.module, form, trained_only):
            weights = {name: parameter.detach().clone() for name, parameter in chunk}
            yield from (weights if form is None else form(weights)).items()

    def weight_shapes(self, form: WeightForm | None = None) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        return shapes_of(self.module, form)

    def device_weights(self, form: WeightForm | None = None) -> Iterator[tuple[str, Tensor]]:
        weights = {name: parameter.detach() for name, parameter in self.module.named_parameters()}
        yield from (weights if form is None else form(weights)).items()

    def copy_state(self) -> StateCopy:
        state = {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        copy, num_bytes = copy_to_memory(state)
        return StateCopy({"state.pt": copy}, num_bytes)

    def load_state(self, folder: Path, num_ranks: int, scratch: Path) -> None:
        state = torch.load(folder / "state.pt", weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])

    def close(self) -> None:
        pass


def plain_learner(
    model_path: Path,
    algorithm: Any,
    options: dict[str, Any] | None = None,
    config: LearnerConfig | None = None,
    *,
    model: ModelConfig | None = None,
    **settings: Any,
) -> Learner:
    """One rank on plain torch, always from the same start. ``algorithm`` is a name or an algorithm.

    Args:
        model: instead of the one at ``model_path`` in float32.
    """
    config = config or LearnerConfig(policy_lr=1e-3, critic_lr=1e-3, micro_batch_tokens=120)
    model = model or ModelConfig(path=str(model_path))
    built = build_algorithm(algorithm, options or {}) if isinstance(algorithm, str) else algorithm
    critic, policy_model = None, load_policy(model, seed=0)
    if built.critic_config is not None and model.critic_adapts:
        critic = TorchEngine(critic_over_policy(model, built.critic_config, 0, policy_model), config)
    elif built.critic_config is not None:
        critic = TorchEngine(load_critic(model, built.critic_config, seed=0), config)
    policy = TorchEngine(policy_model, config)
    reference: PolicyModel | FrozenBase | None = None
    if model.lora is not None:
        reference = FrozenBase(policy.module, policy.forward)
    elif built.needs_reference:
        reference = load_reference(model, seed=0)
    complete = UpdateSettings(**{"config": config, "num_updates": 10, **settings})
    return Learner(built, policy, critic, reference, TorchCollective(CPU), complete)


def save_checkpoint(
    learner: Learner,
    final: Path,
    model_path: Path,
    extra: dict[str, Any] | None = None,
    lora: LoraOptions | None = None,
) -> None:
    """What a run does to save, for a learner of one rank."""
    snapshot = take_snapshot(learner, ModelConfig(path=str(model_path), lora=lora), extra or {})
    partial = begin(final, snapshot.facts.num_bytes)
    facts = {"step": checkpoint_step(final), "num_ranks": 1, "zero_stage": snapshot.facts.zero_stage}
    commit(partial, final, facts, snapshot.write(partial))


def random_samples(number: int, seed: int = 0) -> list[ScoredTrajectory]:
    """Trajectories of random lengths, four to a prompt, with rewards 0 or 1."""
    rng, samples = random.Random(seed), []
    for i in range(number):
        num_prompt, num_response = rng.randint(2, 9), rng.randint(1, 20)
        length = num_prompt + num_response
        trajectory = Trajectory(
            prompt_id=f"p{i // 4}",
            sample_index=i % 4,
            token_ids=tuple(rng.randrange(6, 60) for _ in range(length)),
            action_mask=(False,) * num_prompt + (True,) * num_response,
            rollout_logprobs=(0.0,) * num_prompt + tuple(-rng.uniform(1.0, 6.0) for _ in range(num_response)),
            response_text="",
            finish_reason=rng.choice([FinishReason.STOP, FinishReason.LENGTH]),
            policy_version_min=0,
            policy_version_max=0,
        )
        samples.append(
            ScoredTrajectory(trajectory=trajectory, reward=float(rng.random() < 0.5), group_id=f"p{i // 4}@0")
        )
    return samples
