"""Every preset goes on from a checkpoint bit by bit as it would have: weights, moments, scales, random streams."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.algorithms.presets import PRESETS
from learner.checkpoint.load import load_checkpoint
from learner.update.learner import Learner
from tests.learner.plain_learner import random_samples, save_checkpoint

pytestmark = pytest.mark.slow

NUM_UPDATES, SAVED_AT = 4, 2


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested state by their path; tensors as lists of bytes."""
    if isinstance(value, torch.Tensor):
        return {path: (str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).tolist())}
    if isinstance(value, dict):
        return {k: v for key, entry in value.items() for k, v in flat(entry, f"{path}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, entry in enumerate(value) for k, v in flat(entry, f"{path}/{i}").items()}
    return {path: repr(value)}


def everything(learner: Learner) -> dict[str, Any]:
    """All that an update can change."""
    state = {"policy": learner.policy.copy_state().states, "algorithm": learner.algorithm.state_dict()}
    if learner.critic is not None:
        state["critic"] = learner.critic.copy_state().states
    return flat(state | {"counters": learner.state_dict(), "next": [torch.rand(2), random.random(), np.random.rand()]})


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.mark.parametrize("preset", PRESETS)
def test_resume_is_bit_exact(
    preset: str, tmp_path: Path, tiny_model: Path, make_learner: Callable[..., Learner]
) -> None:
    unbroken = make_learner(preset, num_updates=NUM_UPDATES)
    seed_everything(0)
    for update in range(NUM_UPDATES):
        if update == SAVED_AT:
            save_checkpoint(unbroken, tmp_path / "step-2", tiny_model)
        unbroken.update(random_samples(8, update), update)
    expected = everything(unbroken)

    seed_everything(1)
    resumed = make_learner(preset, num_updates=NUM_UPDATES)
    load_checkpoint(resumed, tmp_path / "step-2")
    for update in range(SAVED_AT, NUM_UPDATES):
        resumed.update(random_samples(8, update), update)
    found = everything(resumed)
    assert [key for key in expected if found.get(key) != expected[key]] == []
    assert found.keys() == expected.keys()
