"""Adapters of a policy: what is trained, what the model is without them, and what they merge to."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from learner.checkpoint.load import load_checkpoint, policy_weights
from learner.checkpoint.published import published_shapes, published_tensors, published_weights
from learner.config import LearnerConfig, LoraOptions, ModelConfig, check_compatible
from learner.models.lora.adapters import without_adapters
from learner.models.lora.merge import is_adapter, merged_by
from learner.models.policy import load_policy, load_reference
from learner.storage.manifest import CheckpointError
from learner.update.learner import Learner
from rollout.component import UserError
from tests.learner.plain_learner import plain_learner, random_samples, save_checkpoint

peft = pytest.importorskip("peft", reason="the extra 'lora' is not installed")

LORA = LoraOptions(rank=4, alpha=8)
OPTIONS = {"kl_coef": 0.05}
IDS = torch.arange(24).reshape(2, 12) % 60 + 6
MASK = torch.arange(12).expand(2, 12) > 3


def model_config(path: Path, **options: Any) -> ModelConfig:
    return ModelConfig(path=str(path), lora=LORA.model_copy(update=options))


def trained(path: Path, steps: int = 2, algorithm: str = "grpo", **options: Any) -> Learner:
    learner = plain_learner(path, algorithm, OPTIONS, model=model_config(path, **options))
    for step in range(steps):
        assert learner.update(random_samples(8, step), step).skipped == ""
    return learner


def logprobs(model: Callable[..., dict[str, Tensor]]) -> Tensor:
    with torch.no_grad():
        return model(token_ids=IDS, action_mask=MASK, temperature=1.0)["logprobs"]


@torch.no_grad()
def values_of(learner: Learner) -> Tensor:
    assert learner.critic is not None
    return learner.critic.forward(token_ids=IDS, action_mask=MASK)["quantile_values"]


@pytest.fixture(scope="module")
def after_two_updates(tiny_model: Path) -> Learner:
    return trained(tiny_model)


def test_adapters_alone_are_trained_and_the_rest_stays_to_the_last_bit(
    tiny_model: Path, after_two_updates: Learner
) -> None:
    policy = after_two_updates.policy.module
    names = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert names == {name for name, _ in policy.named_parameters() if is_adapter(name)}
    assert len(names) == 2 * 2 * 7, "A and B of seven linear layers in two layers"
    start = dict(load_policy(ModelConfig(path=str(tiny_model)), 0).named_parameters())
    for name, parameter in policy.named_parameters():
        if name not in names:
            assert torch.equal(parameter, start[name.replace(".base_layer.", ".")]), name
    moved = [p.detach().abs().max() for name, p in policy.named_parameters() if ".lora_B." in name]
    assert all(float(size) > 0 for size in moved)


def test_without_adapters_it_is_the_starting_policy(tiny_model: Path, after_two_updates: Learner) -> None:
    start = logprobs(load_policy(ModelConfig(path=str(tiny_model)), 0))
    policy = after_two_updates.policy.module
    now = logprobs(policy)
    assert float((now - start).abs().max()) > 1e-3
    assert after_two_updates.reference is not None
    assert torch.equal(logprobs(after_two_updates.reference), start)
    with pytest.raises(RuntimeError, match="on the way"), without_adapters(policy):
        raise RuntimeError("on the way")
    assert torch.equal(logprobs(policy), now)


def test_a_kl_penalty_is_that_to_a_frozen_copy(tiny_model: Path) -> None:
    one, other = trained(tiny_model, steps=1), trained(tiny_model, steps=1)
    other.reference = load_reference(ModelConfig(path=str(tiny_model)), seed=0)
    metrics = [learner.update(random_samples(8, 1), 1).metrics for learner in (one, other)]
    assert any("kl" in name for name in metrics[0])
    assert repr(metrics[0]) == repr(metrics[1])


def test_merged_weights_are_an_ordinary_model(tiny_model: Path, after_two_updates: Learner) -> None:
    plain = load_policy(ModelConfig(path=str(tiny_model)), 0)
    names = [name.removeprefix("lm.") for name, _ in plain.named_parameters()]
    weights = dict(policy_weights(after_two_updates))
    assert sorted(weights) == sorted(names)
    missing = plain.lm.load_state_dict(weights, strict=False)
    assert missing.unexpected_keys == []
    assert float((logprobs(plain) - logprobs(after_two_updates.policy.module)).abs().max()) < 1e-5
    shapes = published_shapes(after_two_updates)
    assert [(name, t.dtype, tuple(t.shape)) for name, t in published_tensors(after_two_updates)] == shapes
    assert sorted(name for name, *_ in shapes) == sorted(names)
    for name, tensor in published_tensors(after_two_updates):
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-6)
    copied = dict(published_weights(after_two_updates, in_float32=True))
    assert all(torch.equal(copied[name], tensor) for name, tensor in published_tensors(after_two_updates))
    assert all(weight.dtype == torch.float32 for weight in copied.values())


def test_a_frozen_weight_without_its_adapter_is_noticed() -> None:
    parts: Iterator[tuple[str, int]] = iter([("x.base_layer.weight", 1), ("x.lora_A.default.weight", 2)])
    with pytest.raises(AssertionError, match="without the other"):
        list(merged_by(parts, lambda weight, a, b: weight))


@pytest.mark.parametrize("merged", [True, False])
def test_checkpoints(tiny_model: Path, tmp_path: Path, merged: bool) -> None:
    """Adapters and optimiser state only; resumed to the last bit; peft and transformers load what is for others."""
    options = LORA.model_copy(update={"merged_checkpoints": merged})
    learner = trained(tiny_model, algorithm="ppo")
    save_checkpoint(learner, tmp_path / "step-2", tiny_model, lora=options)
    expected = learner.update(random_samples(8, 2), 2)
    again = plain_learner(tiny_model, "ppo", OPTIONS, model=model_config(tiny_model))
    load_checkpoint(again, tmp_path / "step-2")
    before = logprobs(again.policy.module)
    assert repr(again.update(random_samples(8, 2), 2).metrics) == repr(expected.metrics)
    for (name, one), (_, other) in zip(
        learner.policy.module.named_parameters(), again.policy.module.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "step-2" / "adapter")
    # In place of the adapters, which the last update has moved.
    fresh = plain_learner(tiny_model, "ppo", OPTIONS, model=model_config(tiny_model))
    load_checkpoint(fresh, tmp_path / "step-2")
    with torch.no_grad():
        theirs = loaded.eval()(input_ids=IDS).logits
        ours = fresh.policy.module.eval().lm(input_ids=IDS).logits  # type: ignore[operator]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    assert (tmp_path / "step-2" / "policy").is_dir() == merged
    if merged:
        merged_policy = load_policy(ModelConfig(path=str(tmp_path / "step-2" / "policy")), 0)
        assert float((logprobs(merged_policy) - before).abs().max()) < 1e-5


def test_a_critic_over_the_policys_weights(tiny_model: Path, tmp_path: Path) -> None:
    """It begins as a critic of its own would, holds no second copy, and neither model changes the other."""
    config, options = model_config(tiny_model, critic="adapter"), LORA.model_copy(update={"critic": "adapter"})
    learner = plain_learner(tiny_model, "ppo", OPTIONS, model=config)
    whole = plain_learner(tiny_model, "ppo", OPTIONS, model=model_config(tiny_model))
    assert learner.critic is not None and whole.critic is not None
    start = values_of(learner)
    torch.testing.assert_close(start, values_of(whole), rtol=0, atol=1e-6)
    of_policy = {p.data_ptr() for p in learner.policy.module.parameters()}
    for name, parameter in learner.critic.module.named_parameters():
        assert (parameter.data_ptr() in of_policy) != parameter.requires_grad, name
    assert learner.update(random_samples(8, 0), 0, critic_only=True).skipped == ""
    assert learner.reference is not None
    assert torch.equal(logprobs(learner.policy.module), logprobs(learner.reference))
    assert float((values_of(learner) - start).abs().max()) > 1e-4
    learner.update(random_samples(8, 1), 1)
    save_checkpoint(learner, tmp_path / "step-2", tiny_model, lora=options)
    names = set(load_file(tmp_path / "step-2" / "critic" / "model.safetensors"))
    assert names == {name for name, p in learner.critic.module.named_parameters() if p.requires_grad}
    again = plain_learner(tiny_model, "ppo", OPTIONS, model=config)
    load_checkpoint(again, tmp_path / "step-2")
    results = [repr(rank.update(random_samples(8, 2), 2).metrics) for rank in (learner, again)]
    assert results[0] == results[1]
    with pytest.raises(CheckpointError, match=r"its critic has the shape .*'adapts': True"):
        load_checkpoint(whole, tmp_path / "step-2")


def test_a_body_of_the_critics_own_is_refused_beside_adapters() -> None:
    model = ModelConfig(path="x", critic_path="y", lora=LORA.model_copy(update={"critic": "adapter"}))
    with pytest.raises(UserError, match=r"model\.critic_path: has no effect with model\.lora\.critic 'adapter'"):
        check_compatible(model, LearnerConfig())


def test_target_layers_by_name(tiny_model: Path) -> None:
    policy = load_policy(model_config(tiny_model, target_modules=["q_proj", "model.layers.1.mlp.up_proj"]), 0)
    trained_names = {name.split(".lora_")[0] for name, p in policy.named_parameters() if p.requires_grad}
    layers = {f"lm.model.layers.{i}.self_attn.q_proj" for i in (0, 1)} | {"lm.model.layers.1.mlp.up_proj"}
    assert trained_names == layers


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_prj"], r"model\.lora\.target_modules: the model has no linear layer 'q_prj'; did you mean 'q_proj'\? "
         r"valid: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj; or 'all-linear' for all"),
        (["lm_head"], "no linear layer 'lm_head'"),
        (["embed_tokens"], "no linear layer 'embed_tokens'"),
        (["proj"], "no linear layer 'proj'"),
    ],
)  # fmt: skip
def test_targets_that_are_not_there(tiny_model: Path, targets: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_policy(model_config(tiny_model, target_modules=targets), 0)


def test_a_place_of_the_reference_is_refused() -> None:
    with pytest.raises(UserError, match=r"learner\.reference: 'offloaded' has no effect with model\.lora"):
        check_compatible(ModelConfig(path="x", lora=LORA), LearnerConfig(reference="offloaded"))


def test_without_peft(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else found(name))
    with pytest.raises(UserError, match=r"model\.lora: needs the package peft, .*pip install 'dvpo\[lora\]'"):
        load_policy(model_config(tiny_model), 0)
