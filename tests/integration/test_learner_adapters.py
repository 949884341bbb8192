"""Adapters of the policy in real ranks over gloo, at every ZeRO stage, against plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.workers.learner_worker import LearnerSpec
from learner.config import LearnerConfig, LoraOptions, ModelConfig
from learner.metrics import to_floats
from learner.models.lora.merge import is_adapter
from tests.integration.learner_ranks import TestedRanks, ranks
from tests.integration.test_learner_memory import endless, save
from tests.learner.plain_learner import plain_learner, random_samples

pytest.importorskip("peft", reason="the extra 'lora' is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("ray_local")]

LR: dict[str, Any] = {"policy_lr": 1e-2, "critic_lr": 1e-3, "lr_warmup_frac": 0.0, "adam_eps": 1e-3}
CONFIG = LearnerConfig(**LR, micro_batch_tokens=120)
OPTIONS: dict[str, Any] = {"num_epochs": 1, "num_minibatches": 2, "kl_coef": 0.05}
CASES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {  # ranks, learner, model
    "stage 0": (1, {"zero_stage": 0}, {}),
    "stage 0, critic": (1, {"zero_stage": 0}, {"critic": "adapter"}),
    "stage 1, critic": (1, {"zero_stage": 1}, {"gradient_checkpointing": True, "critic": "adapter"}),
    "stage 2, optimiser in host memory": (1, {"zero_stage": 2, "offload": "optimizer"}, {}),
    "stage 3": (1, {"zero_stage": 3}, {}),
    "stage 2, two ranks, critic": (2, {"zero_stage": 2}, {"critic": "adapter"}),
    "stage 3, two ranks, critic": (2, {"zero_stage": 3}, {"critic": "adapter"}),
    "stage 3, two ranks, all in host memory, critic": (
        2,
        {"zero_stage": 3, "offload": "all"},
        {"gradient_checkpointing": True, "pack_rows": False, "critic": "adapter"},
    ),
}


def spec(path: Path, of_learner: dict[str, Any], of_model: dict[str, Any]) -> LearnerSpec:
    critic, others = of_model.get("critic", "whole"), {key: of_model[key] for key in of_model if key != "critic"}
    model = ModelConfig(path=str(path), lora=LoraOptions(rank=4, merged_checkpoints=False, critic=critic), **others)
    config = CONFIG.model_copy(update=of_learner)
    return LearnerSpec(model, config, "ppo", OPTIONS, num_updates=4, kl_to_start_every=1)


def update(group: TestedRanks, step: int) -> dict[str, float]:
    return to_floats(group.call_blocking("update", random_samples(6, step), step, timeout_s=60)[0].metrics)


Oracle = tuple[list[dict[str, float]], dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def oracles(tiny_model: Path) -> dict[str, Oracle]:
    """Metrics of three updates on plain torch, and the merged weights after them, by kind of critic."""
    from learner.checkpoint.load import policy_weights

    found: dict[str, Oracle] = {}
    for critic in ("whole", "adapter"):
        model = ModelConfig(path=str(tiny_model), lora=LoraOptions(rank=4, critic=critic))
        oracle = plain_learner(tiny_model, "ppo", OPTIONS, CONFIG, model=model, num_updates=4)
        metrics = [to_floats(oracle.update(random_samples(6, step), step).metrics) for step in range(3)]
        found[critic] = (metrics, dict(policy_weights(oracle)))
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_same_numbers_at_every_stage(
    case: str, tiny_model: Path, tmp_path: Path, oracles: dict[str, Oracle]
) -> None:
    world, of_learner, of_model = CASES[case]
    with ranks(world, spec(tiny_model, of_learner, of_model)) as group:
        found, refused = [], ""
        for step in range(3):
            if step == 2:  # what was forgotten must not come back
                refused = group.call_blocking("update", endless(), step, timeout_s=60)[0].skipped
            found.append(update(group, step))
            if step == 1:
                save(group, tmp_path, 2)
        (weights, _), *_ = group.call_blocking("export_weights", False, timeout_s=60)
        announced, sent, _ = group.call_blocking("sent_by_nccl", 1 << 12, timeout_s=60)[-1]
        group.call_blocking("load", str(tmp_path / "step-2"), timeout_s=90)
        again = update(group, 2)
    assert again == pytest.approx(found[2], rel=0.0, abs=0.0, nan_ok=True)
    assert "not finite" in refused
    metrics, merged = oracles[of_model.get("critic", "whole")]
    for step in range(3):
        assert "policy/kl_to_start" in found[step]
        for key in (key for key in metrics[step] if not key.startswith("learner/")):
            wanted = pytest.approx(metrics[step][key], rel=2e-3, abs=1e-4, nan_ok=True)
            assert found[step][key] == wanted, f"{key} at step {step}"
    assert [name for name, _, _ in announced] == list(sent), "in the order in which they come"
    assert sorted(sent) == sorted(weights) == sorted(merged)
    for name, weight in merged.items():
        np.testing.assert_allclose(weights[name], weight.numpy(), rtol=0, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(sent[name], weights[name], rtol=0, atol=1e-6, err_msg=name)
    only_adapters(tmp_path / "step-2", world)


def only_adapters(checkpoint: Path, world: int) -> None:
    """No frozen weight is in a checkpoint, and the optimiser has states of adapters alone."""
    assert not (checkpoint / "policy").exists()
    numbers = 0
    for path in sorted((checkpoint / "state" / "policy" / "state").glob("*.pt")):
        state = torch.load(path, weights_only=False)
        if state.get("module"):
            parameters = {name for name in state["module"] if name.endswith(("weight", "bias"))}
            assert parameters and all(is_adapter(name) for name in parameters)
        assert not state.get("frozen_param_fragments")
        held = state.get("optimizer_state_dict") or state.get("optimizer") or {}
        numbers += sum(t.numel() for t in tensors(held))
    adapters = sum(4 * (i + o) for i, o in [(64, 64)] * 4 + [(64, 128)] * 2 + [(128, 64)]) * 2
    assert 2 * adapters <= numbers <= 3 * adapters + 4096 * world, "two moments, and master weights"


def tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state] if state.dim() else []
    inside = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for part in inside for tensor in tensors(part)]


@pytest.mark.parametrize("stage", [2, 3])
def test_bfloat16_and_another_number_of_ranks(stage: int, tiny_model: Path, tmp_path: Path) -> None:
    """Two ranks write, one goes on: through DeepSpeed's universal format, which knows nothing of frozen weights."""
    half = {"dtype": "bfloat16", "critic": "adapter"}
    with ranks(2, spec(tiny_model, {"zero_stage": stage}, half)) as group:
        first = [update(group, step) for step in range(2)]
        save(group, tmp_path, 2)
        (before, _), _ = group.call_blocking("export_weights", False, timeout_s=60)
        expected = update(group, 2)
    assert first[0]["policy/grad_norm"] > 0
    with ranks(1, spec(tiny_model, {"zero_stage": stage}, half)) as group:
        group.call_blocking("load", str(tmp_path / "step-2"), timeout_s=120)
        (after, _), *_ = group.call_blocking("export_weights", False, timeout_s=60)
        found = update(group, 2)
    for name, weight in before.items():
        np.testing.assert_array_equal(after[name], weight, err_msg=name)
    assert found["policy/grad_norm"] == pytest.approx(expected["policy/grad_norm"], rel=0.02)
