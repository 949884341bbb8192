"""Policy and critic networks against plain transformers and hand-written heads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from learner.config import LearnerConfig, ModelConfig, check_compatible
from learner.models.critic import CriticModel, QuantileHeads, load_critic
from learner.models.policy import PolicyModel, has_plain_head, load_policy, load_reference
from learner.models.spec import CriticConfig
from rollout.component import UserError

LENGTHS = (9, 4, 13)


def ragged(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded token ids of three rows, and a mask with two gaps."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(6, 60, (3, max(LENGTHS)), generator=generator)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        ids[row, length:] = 0
        mask[row, 2:length] = True
    mask[2, 5:7] = False
    return ids, mask


def oracle(model: Path, ids: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each token and entropy of its distribution, one unpadded row [1 seq] at a time."""
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        logp = (lm(input_ids=ids).logits[0, :-1].double() / temperature).log_softmax(-1)
    chosen = logp.gather(-1, ids[0, 1:, None])[:, 0]
    return chosen, -(logp.exp() * logp).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_policy_equals_plain_transformers_row_by_row(tiny_model: Path, temperature: float) -> None:
    ids, mask = ragged()
    policy = load_policy(ModelConfig(path=str(tiny_model)), seed=0)
    found = policy(ids, mask, temperature, entropy="grad")
    for row, length in enumerate(LENGTHS):
        logprobs, entropy = oracle(tiny_model, ids[row : row + 1, :length], temperature)
        keep = mask[row, 1:length]
        got = found["logprobs"][row, 1:length][keep]
        torch.testing.assert_close(got.double(), logprobs[keep], rtol=0, atol=1e-5)
        torch.testing.assert_close(found["entropy"][row, 1:length][keep].double(), entropy[keep], rtol=0, atol=1e-5)
    assert found["logprobs"][mask].std() > 0.5  # the model is not uniform, so a wrong shift would show
    assert not found["logprobs"][~mask].any()
    assert not found["entropy"][~mask].any()


def test_padding_changes_nothing(tiny_model: Path) -> None:
    ids, mask = ragged()
    model = ModelConfig(path=str(tiny_model))
    policy, critic = load_policy(model, seed=0), load_critic(model, CriticConfig(num_heads=2, num_quantiles=8), seed=0)
    with torch.no_grad():
        for row, length in enumerate(LENGTHS):
            cut = (ids[row : row + 1, :length], mask[row : row + 1, :length])
            for padded, alone in (
                (policy(ids, mask, 1.0)["logprobs"], policy(*cut, 1.0)["logprobs"]),
                (critic(ids, mask)["quantile_values"], critic(*cut)["quantile_values"]),
            ):
                torch.testing.assert_close(padded[row : row + 1, :length], alone, rtol=0, atol=1e-5)
                assert not padded[row, length:].any()


def test_gradients_equal_those_of_plain_logits(tiny_model: Path) -> None:
    ids, mask = ragged()
    policy = load_policy(ModelConfig(path=str(tiny_model)), seed=0)
    plain = load_policy(ModelConfig(path=str(tiny_model)), seed=0)
    plain.head = None  # through the model's own logits
    weights = torch.randn(ids.shape, generator=torch.Generator().manual_seed(1))
    for model in (policy, plain):
        found = model(ids, mask, 0.8, entropy="grad")
        (found["logprobs"] * weights + 0.1 * found["entropy"]).sum().backward()
    for (name, a), (_, b) in zip(policy.lm.named_parameters(), plain.lm.named_parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_entropy_without_its_gradient(tiny_model: Path) -> None:
    ids, mask = ragged()
    policy = load_policy(ModelConfig(path=str(tiny_model)), seed=0)
    found = {mode: policy(ids, mask, 1.0, entropy=mode) for mode in ("none", "value", "grad")}
    assert not found["none"]["entropy"].any()
    assert torch.equal(found["value"]["entropy"], found["grad"]["entropy"])
    # an output that requires a gradient which nobody uses would upset the order of communication under ZeRO-3
    assert [found[mode]["entropy"].requires_grad for mode in found] == [False, False, True]
    assert all(found[mode]["logprobs"].requires_grad for mode in found)


def test_gradient_checkpointing_changes_nothing(tiny_model: Path) -> None:
    ids, mask = ragged()
    grads = []
    for checkpointing in (False, True):
        model = ModelConfig(path=str(tiny_model), gradient_checkpointing=checkpointing)
        policy = load_policy(model, seed=0)
        assert policy.lm.is_gradient_checkpointing is checkpointing
        policy(ids, mask, 1.0)["logprobs"].sum().backward()
        slopes = [p.grad for p in policy.parameters()]
        grads.append([slope.clone() for slope in slopes if slope is not None])
        assert len(grads[-1]) == len(slopes)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_a_head_that_scales_its_logits_is_noticed() -> None:
    class Scaled(Qwen2ForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = 0.5 * output.logits
            return output

    config = Qwen2Config(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    plain, scaled = Qwen2ForCausalLM(config), Scaled(config)
    scaled.load_state_dict(plain.state_dict())
    assert has_plain_head(plain) and not has_plain_head(scaled)
    ids, mask = ragged()[0] % 32, ragged()[1]
    # half the logits is twice the temperature
    torch.testing.assert_close(PolicyModel(scaled)(ids, mask, 1.0), PolicyModel(plain)(ids, mask, 2.0))


def test_reference_is_frozen_and_dropout_is_off(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, attention_dropout=0.5,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    model = ModelConfig(path=str(tmp_path))
    policy, reference = load_policy(model, seed=0), load_reference(model, seed=0)
    ids, mask = ragged()[0] % 32, ragged()[1]
    assert policy.training
    assert torch.equal(policy(ids, mask, 1.0)["logprobs"], policy(ids, mask, 1.0)["logprobs"])
    assert policy.lm.config.attention_dropout == 0.5  # the configuration is handed on as it came
    assert not any(p.requires_grad for p in reference.parameters())
    assert not reference(ids, mask, 1.0)["logprobs"].requires_grad


def test_a_missing_model_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model\.path: cannot load '.*nowhere'.*folder in Hugging Face format"):
        load_policy(ModelConfig(path=str(tmp_path / "nowhere")), seed=0)
    with pytest.raises(UserError, match=r"^model\.critic_path: cannot load"):
        load_critic(ModelConfig(path="x", critic_path=str(tmp_path / "nowhere")), CriticConfig(), seed=0)
    with pytest.raises(UserError, match=r"^learner\.zero_stage: 0 keeps no float32 master weights"):
        check_compatible(ModelConfig(path="x", dtype="bfloat16"), LearnerConfig(zero_stage=0))


@pytest.mark.parametrize("monotonicity", ["sort", "cumsum", "none"])
@pytest.mark.parametrize("num_quantiles", [1, 2, 5, 8])
def test_heads_start_sorted_and_narrow(monotonicity: str, num_quantiles: int) -> None:
    config = CriticConfig(
        num_heads=3, num_quantiles=num_quantiles, monotonicity=monotonicity, prior_mean=0.4, prior_scale=2.0
    )
    heads = QuantileHeads(16, config, seed=5)
    values = heads(torch.zeros(2, 16))["quantile_values"].detach()
    expected = [0.4 + 2 * 0.2 * ((2 * i - 1) / (2 * num_quantiles) - 0.5) for i in range(1, num_quantiles + 1)]
    assert values.shape == (2, 3, num_quantiles)
    torch.testing.assert_close(values, torch.tensor(expected).expand(2, 3, -1), rtol=0, atol=1e-6)
    # in other states they are shifted as a whole, by a head's own small weights: nothing starts crossed
    states = 30.0 * torch.randn(100, 16, generator=torch.Generator().manual_seed(1))
    found = {name: value.detach() for name, value in heads(states).items()}
    shifted = values[:1] + torch.stack([states @ heads.weight[h, 0].detach() for h in range(3)], dim=1)[..., None]
    assert not found["raw_crossing_frac"].any()
    if monotonicity != "cumsum":
        torch.testing.assert_close(found["quantile_values"], shifted, rtol=0, atol=1e-5)
    assert float(heads.weight.detach().std()) == pytest.approx(1e-3, rel=0.3)
    assert not torch.equal(heads.weight[0], heads.weight[1])  # every head has a seed of its own
    again = QuantileHeads(16, config, seed=5)
    assert torch.equal(heads.weight, again.weight)  # and every rank the same ones
    assert torch.equal(QuantileHeads(16, config, seed=6).weight[0], heads.weight[1])


def test_sorting_and_cumulating_give_quantile_functions() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 16, generator=generator) * 5
    values = {}
    for monotonicity in ("sort", "cumsum", "none"):
        heads = QuantileHeads(16, CriticConfig(num_heads=2, num_quantiles=7, monotonicity=monotonicity), seed=0)
        with torch.no_grad():
            heads.weight.copy_(torch.randn(heads.weight.shape, generator=torch.Generator().manual_seed(1)))
        values[monotonicity] = (heads, heads(hidden))
    raw = values["none"][1]["quantile_values"]
    by_hand = torch.stack([hidden @ values["none"][0].weight[h].T + values["none"][0].bias[h] for h in range(2)], 1)
    torch.testing.assert_close(raw, by_hand)
    assert torch.equal(values["sort"][1]["quantile_values"], raw.sort(-1).values)
    crossing = (raw[..., 1:] < raw[..., :-1]).float().mean(-1).mean(-1)
    for mode in ("sort", "none"):
        torch.testing.assert_close(values[mode][1]["raw_crossing_frac"], crossing)
    outward = values["cumsum"][1]["quantile_values"]
    assert (outward.diff(dim=-1) >= 0).all()
    assert not values["cumsum"][1]["raw_crossing_frac"].any()
    raw = by_hand - values["none"][0].bias + values["cumsum"][0].bias
    steps = torch.log1p(raw.exp()) / 7
    torch.testing.assert_close(outward[..., 3], raw[..., 3], rtol=0, atol=1e-5)
    torch.testing.assert_close(outward[..., 5], raw[..., 3] + steps[..., 4] + steps[..., 5], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outward[..., 1], raw[..., 3] - steps[..., 2] - steps[..., 1], rtol=1e-5, atol=1e-5)


def test_cumsum_divides_the_gradient_of_the_middle_by_the_number_of_quantiles() -> None:
    heads = QuantileHeads(4, CriticConfig(num_heads=1, num_quantiles=5, monotonicity="cumsum"), seed=0)
    heads(torch.ones(1, 4))["quantile_values"].sum().backward()
    assert heads.bias.grad is not None
    assert heads.bias.grad[0, 2] == pytest.approx(1.0)  # 5 quantiles follow it, over 5
    slope = 1.0 - math.exp(-0.2)  # of softplus where it equals the initial width, 2 * 0.1
    assert heads.bias.grad[0, 3] == pytest.approx(2 / 5 * slope, rel=1e-2)  # it moves quantiles 3 and 4


def test_critic_reads_the_state_before_the_token(tiny_model: Path) -> None:
    ids, mask = ragged()
    critic = load_critic(ModelConfig(path=str(tiny_model)), CriticConfig(num_heads=2, num_quantiles=4), seed=3)
    with torch.no_grad():
        assert isinstance(critic.heads, QuantileHeads)
        critic.heads.weight.mul_(300)
        found = critic(ids, mask)
        hidden = critic.body(input_ids=ids).last_hidden_state
        expected = critic.heads(hidden[:, :-1].reshape(-1, 64))["quantile_values"].reshape(3, -1, 2, 4)
    assert found["quantile_values"].shape == (3, 13, 2, 4)
    torch.testing.assert_close(found["quantile_values"][:, 1:][mask[:, 1:]], expected[mask[:, 1:]])
    assert not found["quantile_values"][~mask].any()
    changed = ids.clone()
    changed[:, 8] = 5  # a token cannot change the value of the state before it
    with torch.no_grad():
        other = critic(changed, mask)["quantile_values"]
    torch.testing.assert_close(other[:, :9], found["quantile_values"][:, :9])
    assert not torch.allclose(other[2, 9:], found["quantile_values"][2, 9:])


def test_values_after_the_last_token(tiny_model: Path) -> None:
    ids, mask = ragged()
    critic = load_critic(ModelConfig(path=str(tiny_model)), CriticConfig(num_heads=2, num_quantiles=4), seed=3)
    with torch.no_grad():
        assert isinstance(critic.heads, QuantileHeads)
        critic.heads.weight.mul_(300)
        found = critic(ids, mask, end_positions=torch.tensor(LENGTHS) - 1)
        longer = torch.cat([ids, torch.zeros(3, 1, dtype=torch.int64)], dim=1)  # one more token to stand before
        after = torch.zeros(longer.shape, dtype=torch.bool)
        after[torch.arange(3), torch.tensor(LENGTHS)] = True
        expected = critic(longer, after)["quantile_values"][after]
        assert torch.equal(found["quantile_values"], critic(ids, mask)["quantile_values"])
    torch.testing.assert_close(found["end_values"], expected)


def test_heads_stay_in_float32_beside_a_bfloat16_body(tiny_model: Path) -> None:
    ids, mask = ragged()
    config = CriticConfig(num_heads=1, num_quantiles=200, prior_mean=1.0)
    exact = load_critic(ModelConfig(path=str(tiny_model)), config, seed=3)
    half = load_critic(ModelConfig(path=str(tiny_model), dtype="bfloat16"), config, seed=3)
    assert isinstance(half, CriticModel)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    values, wanted = (model(ids, mask)["quantile_values"][mask] for model in (half, exact))
    assert values.dtype == torch.float32
    assert not torch.equal(values, wanted)  # the body did compute in bfloat16
    torch.testing.assert_close(values, wanted, rtol=0, atol=2e-3)
    # neighbouring quantiles are 0.001 apart; bfloat16 has no number between 1 and 1.0078
    assert (values.diff(dim=-1) > 0).float().mean() > 0.95


def test_packed_quantiles_are_those_of_the_sampled_tokens(tiny_model: Path) -> None:
    """In order, and with the same gradients."""
    torch.manual_seed(0)
    ids = torch.randint(1, 16, (2, 6))
    mask = torch.tensor([[0, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 0]]).bool()
    critic = load_critic(ModelConfig(path=str(tiny_model)), CriticConfig(num_heads=2, num_quantiles=5), seed=0)
    slopes = []
    for packed in (False, True):
        found = critic(ids, mask, packed=packed)
        values = found["quantile_values"] if packed else found["quantile_values"][mask]
        assert values.shape == (5, 2, 5)
        assert found["raw_crossing_frac"].shape == mask.shape
        critic.zero_grad()
        (values * torch.arange(50.0).view(5, 2, 5)).sum().backward()
        assert isinstance(critic.heads, QuantileHeads) and critic.heads.weight.grad is not None
        slopes.append((values.detach(), critic.heads.weight.grad.clone()))
    assert torch.equal(slopes[0][0], slopes[1][0])
    assert torch.allclose(slopes[0][1], slopes[1][1], rtol=1e-6)
