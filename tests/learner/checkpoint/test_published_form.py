"""Weights leave the learner under the names, and in the shapes, of the files they were loaded from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import Chunk, WeightConverter

from benchmarks.zoo.families import ZOO, Member, change, file_shapes, make
from learner.checkpoint.published_form import PublishedForm
from learner.config import ModelConfig
from learner.engine.weight_chunks import shapes_of, weight_chunks
from learner.models.policy import PolicyModel, load_policy

TRAINED = [member for member in ZOO if member.kind != "gemma3"]


@pytest.mark.parametrize("member", TRAINED, ids=[member.name for member in TRAINED])
def test_every_family_has_its_files_names_shapes_and_numbers(member: Member, tmp_path: Path) -> None:
    make(member, tmp_path)
    policy = load_policy(ModelConfig(path=str(tmp_path), pack_rows=False), seed=0)
    form, files = PublishedForm(policy), file_shapes(tmp_path)
    buffers = {name: tuple(buffer.shape) for name, buffer in form.buffers().items()}
    announced = {name: shape for name, _, shape in shapes_of(policy, form)} | buffers
    seen = {name for name in files if "visual" in name}
    assert announced == {name: shape for name, shape in files.items() if name not in seen}
    weights = {name: parameter.detach() for name, parameter in policy.named_parameters()}
    sent = {name: w.detach() for name, w in form(dict(weights)).items()} | form.buffers()
    saved = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(sent[name], saved[name]) for name in sent)
    assert all(tensor.is_contiguous() for tensor in sent.values())


def test_changed_weights_in_that_form_load_as_the_changed_model(tmp_path: Path) -> None:
    member = next(member for member in ZOO if member.name == "GLM-4-MoE")
    make(member, tmp_path)
    policy = load_policy(ModelConfig(path=str(tmp_path), pack_rows=False), seed=0)
    before = load_file(tmp_path / "model.safetensors")
    change(policy.lm, seed=1)
    form = PublishedForm(policy)
    sent = form(dict(policy.named_parameters())) | form.buffers()
    assert any("e_score_correction_bias" in name for name in sent)
    assert not any(torch.equal(sent[name], before[name]) for name in sent)
    save_file({name: tensor.detach() for name, tensor in sent.items()}, tmp_path / "model.safetensors")
    other = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.equal(other.eval()(input_ids=ids).logits, policy.lm.eval()(input_ids=ids).logits)


def test_weights_that_the_files_hold_as_one_tensor_come_in_one_portion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ZOO[0], tmp_path)
    policy = load_policy(ModelConfig(path=str(tmp_path), pack_rows=False), seed=0)
    parts = ["mlp.gate_proj.weight", "mlp.up_proj.weight"]
    joined = WeightConverter("mlp.gate_up_proj.weight", parts, operations=[Chunk(dim=0)])
    policy.lm._weight_conversions = [joined]
    form = PublishedForm(policy)
    monkeypatch.setattr("learner.engine.weight_chunks.GATHER_NUMEL", 1)
    together = [[name for name, _ in chunk] for chunk in weight_chunks(policy, form) if len(chunk) > 1]
    assert together == [[f"lm.model.layers.{layer}.{part}" for part in parts] for layer in (0, 1)]
    found = {name: shape for name, _, shape in shapes_of(policy, form)}
    assert found["model.layers.1.mlp.gate_up_proj.weight"] == (192, 64)
    assert sum(map(torch.Size.numel, map(torch.Size, found.values()))) == sum(p.numel() for p in policy.parameters())


def test_a_model_that_was_made_and_not_loaded_has_its_familys_names() -> None:
    from transformers import AutoConfig

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "num_experts": 2, "vocab_size": 16}
    config = AutoConfig.for_model("qwen3_moe", **shape, moe_intermediate_size=8, num_key_value_heads=1, head_dim=32)
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config)
    policy = PolicyModel.__new__(PolicyModel)
    nn.Module.__init__(policy)
    policy.lm = lm
    names = {name for name, _, _ in shapes_of(policy, PublishedForm(policy))}
    assert "model.layers.0.mlp.experts.1.up_proj.weight" in names
