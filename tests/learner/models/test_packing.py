"""Rows that are run without padding give what they give alone, and models that cannot do it are found out."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.mamba import MambaConfig, MambaForCausalLM

from learner.config import LearnerConfig, ModelConfig
from learner.maths import row_blocks
from learner.metrics import to_floats
from learner.models import packing
from learner.models.critic import CriticModel, load_critic
from learner.models.packing import PackedRows
from learner.models.policy import PolicyModel, load_policy
from learner.models.spec import CriticConfig
from learner.update.learner import Learner
from tests.learner.plain_learner import random_samples

SHAPE: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
SPECIAL: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=4)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=64, n_layer=2, n_head=4, **SPECIAL)),
}
LENGTHS = [9, 2, 20, 13, 20]


@pytest.fixture(params=["one block", "many blocks"], autouse=True)
def _block_cost(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention over short rows in one call, and in several as it is with long ones."""
    if request.param == "many blocks":
        monkeypatch.setattr(row_blocks, "BLOCK_COST", 10)


SAME: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def made(name: str, cases: dict[str, Callable[[], PreTrainedModel]] = MODELS) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return cases[name]().eval()


def batch(lengths: list[int] = LENGTHS) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, the second half of each row sampled, and lengths."""
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 60, (len(lengths), max(lengths)), generator=g)
    position, length = torch.arange(max(lengths)), torch.tensor(lengths)
    return ids, (position >= length[:, None] // 2) & (position < length[:, None]) & (position > 0), length


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys() and expected
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-3, atol=1e-5 * float(grad.abs().max()) + 1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_policy_gives_what_rows_alone_give(name: str) -> None:
    ids, mask, lengths = batch()
    model = PolicyModel(made(name), pack_rows=True)
    assert model.packs_rows
    found = model(ids, mask, 0.7, "grad", lengths)
    (found["logprobs"].sum() + 0.1 * found["entropy"].sum()).backward()
    packed = gradients(model)
    model.zero_grad()
    plain = PolicyModel(made(name))
    for row, length in enumerate(lengths.tolist()):
        alone = plain(ids[row : row + 1, :length], mask[row : row + 1, :length], 0.7, "grad")
        for key, values in alone.items():
            torch.testing.assert_close(found[key][row : row + 1, :length], values, **SAME)
            assert not found[key][row, length:].any()
        (alone["logprobs"].sum() + 0.1 * alone["entropy"].sum()).backward()
    assert_same_gradients(packed, gradients(plain))


@pytest.mark.parametrize("name", MODELS)
def test_critic_gives_what_rows_alone_give(name: str) -> None:
    ids, mask, lengths = batch()
    config = CriticConfig(num_heads=2, num_quantiles=8)
    critics = [CriticModel(cast(Any, made(name).base_model), config, 0, pack_rows=pack) for pack in (True, False)]
    assert [critic.packs_rows for critic in critics] == [True, False]
    results = [critic(ids, mask, lengths - 1, lengths=lengths) for critic in critics]
    for key, values in results[1].items():
        torch.testing.assert_close(results[0][key], values, **SAME)
    for result in results:
        (result["quantile_values"].square().sum() + result["end_values"].sum()).backward()
    assert_same_gradients(gradients(critics[0]), gradients(critics[1]))


def test_logits_of_a_model_with_more_than_a_linear_head() -> None:
    class Scaled(Qwen2ForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits = 2.0 * out.logits
            return out

    torch.manual_seed(0)
    lm = Scaled(Qwen2Config(**SHAPE, num_key_value_heads=4)).eval()
    ids, mask, lengths = batch()
    model = PolicyModel(lm, pack_rows=True)
    assert model.head is None and model.packs_rows
    torch.testing.assert_close(model(ids, mask, 1.0, lengths=lengths), model(ids, mask, 1.0), **SAME)


def test_gradient_checkpointing_and_rows_of_one_length(tiny_model: Path) -> None:
    for lengths in (LENGTHS, [7, 7, 7]):
        ids, mask, length = batch(lengths)
        both = []
        for checkpointing in (True, False):
            config = ModelConfig(path=str(tiny_model), gradient_checkpointing=checkpointing)
            model = load_policy(config, seed=0)
            assert model.packs_rows
            model(ids, mask, 1.0, lengths=length)["logprobs"].sum().backward()
            both.append(gradients(model))
        assert_same_gradients(*both)


def test_16_bits_stay_near(tiny_model: Path) -> None:
    ids, mask, lengths = batch()
    model = load_policy(ModelConfig(path=str(tiny_model), dtype="bfloat16"), seed=0)
    assert model.packs_rows
    with torch.no_grad():
        found, padded = model(ids, mask, 1.0, lengths=lengths)["logprobs"], model(ids, mask, 1.0)["logprobs"]
    assert float((found - padded).abs().mean()) < 0.05
    critic = load_critic(ModelConfig(path=str(tiny_model), dtype="bfloat16"), CriticConfig(), seed=0)
    assert critic.packs_rows


CANNOT: dict[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "window": (lambda: MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=8)), "window"),
    "layers": (
        lambda: Qwen2ForCausalLM(
            Qwen2Config(**SHAPE, num_key_value_heads=4, use_sliding_window=True, sliding_window=8, max_window_layers=1)
        ),
        "has layers of sliding_attention",
    ),
    "recurrent": (
        lambda: MambaForCausalLM(MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, **SPECIAL)),
        "packed rows",
    ),
    "own attention": (
        lambda: BloomForCausalLM(BloomConfig(vocab_size=60, hidden_size=64, n_layer=2, n_head=4, **SPECIAL)),
        "in 0 of its 2 layers",
    ),
}


@pytest.mark.parametrize("name", CANNOT)
def test_models_that_cannot_run_padded_rows_and_say_so_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    make, reason = CANNOT[name]
    packing._say_once.cache_clear()
    ids, mask, lengths = batch()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.manual_seed(0)
            model = PolicyModel(make().eval(), pack_rows=True)
    (message,) = [record.message for record in caplog.records if record.name == packing.__name__]
    assert message.startswith("model.pack_rows: ") and reason in message and "padded" in message
    assert not model.packs_rows
    torch.manual_seed(0)
    plain = PolicyModel(make().eval())
    with torch.no_grad():
        assert torch.equal(model(ids, mask, 1.0, lengths=lengths)["logprobs"], plain(ids, mask, 1.0)["logprobs"])


def test_a_forward_that_does_not_take_positions_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    lm = made("llama")
    inner = lm.base_model.forward
    lm.base_model.forward = lambda input_ids, use_cache: inner(input_ids=input_ids, use_cache=use_cache)
    packing._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not packing.prepare(lm)
    assert "does not take packed rows (TypeError" in caplog.text
    assert lm.config._attn_implementation == "sdpa"


def test_flash_attention_is_given_rows_and_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel needs a GPU; here an obvious one stands for it, with the arguments that transformers documents."""

    def kernel(q: Tensor, k: Tensor, v: Tensor, mask: None, **given: Any) -> Tensor:
        assert given["is_causal"] and given["attn_implementation"] == "flash_attention_2"
        assert given["max_length_q"] == given["max_length_k"] == max(LENGTHS)
        assert given["query_length"] == q.shape[1] == sum(LENGTHS)
        bounds = given["cu_seq_lens_q"].tolist()
        assert given["cu_seq_lens_q"].dtype == torch.int32 and given["cu_seq_lens_k"].tolist() == bounds
        parts = [tuple(x[:, a:b].transpose(1, 2) for x in (q, k, v)) for a, b in itertools.pairwise(bounds)]
        attend = nn.functional.scaled_dot_product_attention
        rows = [attend(q, k, v, is_causal=True, scale=given["softmax_scale"]) for q, k, v in parts]
        return torch.cat(rows, dim=2).transpose(1, 2)

    ids, mask, lengths = batch()
    model = PolicyModel(made("qwen2"), pack_rows=True)
    expected = model(ids, mask, 1.0, lengths=lengths)["logprobs"]
    monkeypatch.setattr(packing, "_flash_attention_forward", kernel)
    monkeypatch.setattr(packing, "uses_flash", lambda query: True)
    torch.testing.assert_close(model(ids, mask, 1.0, lengths=lengths)["logprobs"], expected, **SAME)


def test_packed_places(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, _, lengths = batch([2, 3])
    rows = PackedRows.of(ids, lengths)
    assert rows.token_ids.tolist() == [[*ids[0, :2].tolist(), *ids[1].tolist()]]
    assert rows.position_ids.tolist() == [[0, 1, 0, 1, 2]]
    assert rows.bounds.tolist() == [0, 2, 5] and rows.longest == 3
    x = torch.arange(10.0).reshape(1, 2, 5, 1)
    monkeypatch.setattr(row_blocks, "BLOCK_COST", 100)
    (block,) = rows.split(x)
    assert block.squeeze(-1).tolist() == [[[0, 1, 0], [5, 6, 0]], [[2, 3, 4], [7, 8, 9]]]
    assert torch.equal(rows.join([block.transpose(1, 2)]), x.transpose(1, 2))
    outputs = packing.RowOutputs(torch.arange(5.0)[:, None], rows)
    assert outputs.before(torch.tensor([[False, True, False], [False, False, True]])).tolist() == [[0.0], [3.0]]
    assert outputs.at(torch.tensor([1, 2])).tolist() == [[1.0], [4.0]]


@pytest.mark.parametrize("preset", ["dvpo", "vrpo-kl"])
def test_an_update_is_the_same_with_packed_rows(
    preset: str, tiny_model: Path, make_learner: Callable[..., Learner]
) -> None:
    config = LearnerConfig(policy_lr=1e-3, critic_lr=1e-3, adam_eps=1e-2, micro_batch_tokens=60, lr_warmup_frac=0.0)
    results = []
    for pack_rows in (True, False):
        model = ModelConfig(path=str(tiny_model), pack_rows=pack_rows)
        learner = make_learner(preset, config=config, model=model)
        assert learner.packs_rows == pack_rows
        torch.manual_seed(0)
        metrics = to_floats(learner.update(random_samples(8), 0).metrics)
        results.append((metrics, dict(learner.policy.full_weights())))
    (packed, weights), (padded, others) = results
    assert packed.pop("learner/padding_frac") == 0.0 and padded.pop("learner/padding_frac") > 0.0
    assert 1 < packed.pop("learner/micro_batches") <= padded.pop("learner/micro_batches")
    assert packed == pytest.approx(padded, rel=2e-3, abs=1e-4)
    for name, weight in others.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=1e-4)
