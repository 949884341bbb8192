"""A real vLLM engine on the tiny model in the test's process, and the same model in plain transformers beside it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from rollout.config import RolloutConfig
from rollout.sampling.vllm_engine import VllmEngine
from rollout.sampling.vllm_options import engine_environment


@asynccontextmanager
async def running_engine(
    model: Path, config: RolloutConfig, transfer_backend: str | None = None, **environment: str
) -> AsyncIterator[VllmEngine]:
    """Start an engine at weight version 0; at the end nothing of it is left."""
    root = Path(__file__).resolve().parents[2]
    environment = {**engine_environment(on_gpu=False), "PYTHONPATH": str(root), **environment}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    others = {child.pid for child in psutil.Process().children(recursive=True)}
    engine = VllmEngine(str(model), config, on_gpu=False, transfer_backend=transfer_backend)
    await engine.set_version(0)
    try:
        yield engine
    finally:
        await engine.shutdown()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        children = [child for child in psutil.Process().children(recursive=True) if child.pid not in others]
        _, alive = psutil.wait_procs([child for child in children if "Engine" in child.name()], timeout=10)
        assert not alive, alive


def perturb(model: Any, seed: int, scale: float = 0.05) -> dict[str, np.ndarray]:
    """Change every weight; returns them as the learner would send them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return weights_of(model)


def weights_of(model: Any) -> dict[str, np.ndarray]:
    """Copies of the weights; a tied LM head is not among them."""
    return {name: parameter.detach().clone().numpy() for name, parameter in model.named_parameters()}


def model_logprobs(model: Any, token_ids: Sequence[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-probability of each token after the first, by plain transformers."""
    with torch.no_grad():
        logits = model(torch.tensor([list(token_ids)])).logits[0, :-1].float() / temperature
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(list(token_ids)[1:])[:, None])[:, 0]
