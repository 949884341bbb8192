"""What a learner rank is built from, and its models, engines and algorithm made of it.

torch is imported in :func:`build_learner` only, see :mod:`actors.workers.learner_worker`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from learner.config import LearnerConfig, ModelConfig
from learner.update.limits import TraceLimits, UpdateLimits
from rollout.component.loading import without_collections

if TYPE_CHECKING:
    import torch

    from learner.algorithms.base import Algorithm
    from learner.models.critic import CriticModel
    from learner.models.lora.adapters import FrozenBase
    from learner.models.policy import PolicyModel
    from learner.update.learner import Learner


@dataclass(frozen=True, slots=True)
class LearnerSpec:
    """What a learner rank is built from; the same for every rank.

    Attributes:
        model: which model.
        learner: optimiser and ZeRO stage.
        algorithm: preset, type or ``module:Class``, see :func:`learner.algorithms.build_algorithm`.
        algorithm_options: its options.
        num_updates: updates of the whole run, for the learning-rate schedule.
        temperature: at which responses are sampled.
        seed: of the run.
        device: ``cpu`` (gloo) or ``cuda`` (nccl; the rank uses the first device it sees).
        num_threads: of torch on CPU.
        timeout_s: longest time one operation between ranks may take.
        limits: when an update must not happen.
        lr_scale: factor on both learning rates; less than 1 after a roll-back.
        kl_to_start_every: updates between two looks at how far the policy is from its start; 0 for none.
        traces: how much is recorded of single tokens.
    """

    model: ModelConfig
    learner: LearnerConfig
    algorithm: str
    algorithm_options: dict[str, Any] = field(default_factory=dict)
    num_updates: int = 1
    temperature: float = 1.0
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    num_threads: int = 1
    timeout_s: float = 1800.0
    limits: UpdateLimits = field(default_factory=UpdateLimits)
    lr_scale: float = 1.0
    kl_to_start_every: int = 0
    traces: TraceLimits = field(default_factory=TraceLimits)


def build_learner(rank: int, world: int, host: str, port: int, spec: LearnerSpec) -> Learner:
    """Join the process group and build models, engines and algorithm of one rank."""
    os.environ.setdefault("OMP_NUM_THREADS", str(spec.num_threads))
    os.environ["DS_ACCELERATOR"] = spec.device
    with without_collections():
        import torch
        from transformers.utils import logging as transformers_logging

        from learner.algorithms.catalogue import build_algorithm
        from learner.engine.deepspeed_engine import DeepSpeedEngine, start_process_group
        from learner.models.lora.adapters import FrozenBase
        from learner.models.policy import load_reference
        from learner.update.collective import TorchCollective
        from learner.update.distances.start_drift import StartDrift
        from learner.update.learner import Learner
        from learner.update.rank import UpdateSettings

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(spec.num_threads)
    device = torch.device(spec.device)
    algorithm = build_algorithm(spec.algorithm, spec.algorithm_options)
    start_process_group(rank, world, host, port, device, spec.timeout_s)
    policy_model, critic_model = _models(spec, algorithm, device)
    pad_token_id = policy_model.lm.config.get_text_config().pad_token_id or 0
    reference = _reference(spec, algorithm, device)
    engines = partial(DeepSpeedEngine, config=spec.learner)
    bfloat16, adapts = spec.model.dtype == "bfloat16", spec.model.lora is not None
    policy = engines(policy_model, bfloat16=bfloat16, saves_frozen=not adapts)
    critic = None if critic_model is None else engines(critic_model, saves_frozen=not spec.model.critic_adapts)
    if adapts:
        reference = FrozenBase(policy_model, policy.forward)
    _seed_everything(spec.seed * 1_000_003 + rank)
    options = (spec.learner, spec.num_updates, spec.temperature, spec.seed, pad_token_id, spec.limits, spec.lr_scale)
    settings = UpdateSettings(*options, spec.traces)
    learner = Learner(algorithm, policy, critic, reference, TorchCollective(device), settings)
    learner.drift = StartDrift(spec.kl_to_start_every, lambda: load_reference(spec.model, spec.seed))
    return learner


def _models(spec: LearnerSpec, algorithm: Algorithm, device: torch.device) -> tuple[PolicyModel, CriticModel | None]:
    """Policy and critic, in no engine yet."""
    from learner.engine.deepspeed_options import deepspeed_settings
    from learner.models.critic import critic_over_policy, load_critic
    from learner.models.policy import load_policy

    is_split, on_gpu = spec.learner.zero_stage == 3, device.type == "cuda"
    settings = deepspeed_settings(spec.learner, spec.model.dtype == "bfloat16", on_gpu) if is_split else None
    policy = load_policy(spec.model, spec.seed, settings)
    if algorithm.critic_config is None:
        return policy, None
    if spec.model.critic_adapts:
        return policy, critic_over_policy(spec.model, algorithm.critic_config, spec.seed, policy)
    settings = deepspeed_settings(spec.learner, False, on_gpu) if is_split else None
    return policy, load_critic(spec.model, algorithm.critic_config, spec.seed, settings)


def _reference(spec: LearnerSpec, algorithm: Algorithm, device: torch.device) -> PolicyModel | FrozenBase | None:
    """A frozen copy of the policy where one is needed; with adapters there is no copy."""
    from learner.engine.deepspeed_options import deepspeed_settings
    from learner.models.policy import load_reference

    if not algorithm.needs_reference or spec.model.lora is not None:
        return None
    settings = deepspeed_settings(spec.learner, spec.model.dtype == "bfloat16", device.type == "cuda")
    return load_reference(spec.model, spec.seed, device, spec.learner.reference, settings)


def _seed_everything(seed: int) -> None:
    """Begin every random stream of this process anew, so that its state is the run's and no accident."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
