"""Whether a checkpoint is of the configured models, from shapes alone: no weights are loaded, nothing is started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from learner.algorithms.base import Algorithm
from learner.checkpoint.adapters import misfit
from learner.checkpoint.load import critic_shape
from learner.config import ModelConfig
from learner.models.critic import CriticModel
from learner.models.lora.adapters import peft_config
from learner.storage.manifest import MANIFEST, CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor by its name."""


def refuse_foreign(checkpoint: Path, model: ModelConfig, algorithm: Algorithm, zero_stage: int) -> None:
    """Compare a checkpoint with what the learner will be built from.

    Raises:
        CheckpointError: it is of other models or adapters, another kind of critic or another ZeRO stage; says which
            option differs.
    """
    stage = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["zero_stage"]
    if stage != zero_stage:
        raise CheckpointError(
            f"{checkpoint}: the optimiser state was saved with ZeRO stage {stage} and can only be resumed so; set "
            f"learner.zero_stage: {stage} (now {zero_stage}), or start a new run with model.path: "
            f"{checkpoint / 'policy'}"
        )
    policy = _made(AutoModelForCausalLM, model.path, model)
    adapters = None if model.lora is None else peft_config(policy, model.lora, model.path)
    if wrong := misfit(checkpoint, adapters, model):
        raise CheckpointError(wrong)
    if (checkpoint / "policy").is_dir() or adapters is None:  # of adapters it may be left out
        _compare(checkpoint / "policy", _shapes(policy), "policy", f"model.path ({model.path})")
    config = algorithm.critic_config
    if (config is not None) != (checkpoint / "critic").is_dir():
        has = "has a" if config is None else "has no"
        raise CheckpointError(f"{checkpoint}: it {has} critic, which does not fit {type(algorithm).__name__}")
    if config is None:
        return
    body = _made(AutoModel, model.critic_body_path, model)
    critic = CriticModel(body, config, seed=0, adapts=model.critic_adapts)
    saved, mine = json.loads((checkpoint / "critic" / "critic.json").read_text(encoding="utf-8")), critic_shape(critic)
    if saved != mine:
        raise CheckpointError(f"{checkpoint}: its critic has the shape {saved}, the configured one {mine}")
    if not model.critic_adapts:  # whose adapters are those of the policy's kind
        _compare(checkpoint / "critic", _shapes(critic), "critic", f"model.critic_path ({model.critic_body_path})")


def _made(kind: Any, path: str, model: ModelConfig) -> Any:
    """A model without memory for its weights."""
    found = AutoConfig.from_pretrained(path, trust_remote_code=model.trust_remote_code)
    with torch.device("meta"):
        return kind.from_config(found, trust_remote_code=model.trust_remote_code)


def _shapes(module: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _compare(folder: Path, mine: Shapes, which: str, where: str) -> None:
    """Refuse weights of other names or shapes. What is tied to another tensor is in the model and not in the files."""
    saved = _saved(folder)
    differ = {name: shape for name, shape in saved.items() if mine.get(name) != shape}
    if differ or not saved:
        name, shape = next(iter(differ.items()), ("any weight", ()))
        have = f"has {list(mine[name])}" if name in mine else "has none of that name"
        raise CheckpointError(
            f"{folder.parent}: it is of another {which}: {len(differ)} of {len(saved)} weights differ, {name} has the "
            f"shape {list(shape)}, and {where} {have}. Give the model that this run began with"
        )


def _saved(folder: Path) -> Shapes:
    """Shapes in the safetensors of a folder, from their headers."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found
