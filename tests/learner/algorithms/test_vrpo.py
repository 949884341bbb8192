"""VRPO: bottleneck, frozen LM head, token selection, schedule, and the reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.critic.regularisers.bottleneck import Bottleneck
from learner.algorithms.critic.regularisers.semantic import SelectedTokens, select_tokens
from learner.algorithms.records import Estimates
from learner.batch import TrainBatch, collate
from learner.checkpoint.load import critic_shape
from learner.config import LearnerConfig, ModelConfig
from learner.maths.collective import SingleProcess
from learner.maths.quantiles.quantiles import quantile_at
from learner.metrics import to_floats
from learner.models.bottleneck import BottleneckHeads, latent_kl
from learner.models.critic import CriticModel, load_critic
from learner.models.head_kl import head_kl
from learner.models.spec import CriticOutput, VariationalCriticConfig
from learner.update.learner import Learner
from rollout.component import UserError
from tests.learner.oracles import on_ranks
from tests.learner.plain_learner import random_samples
from tests.learner.random_batches import counts, make_batch, make_old

F64 = torch.float64
CALM = settings(max_examples=20, deadline=None)
MakeLearner = Callable[..., Learner]
SMALL = {"critic": {"num_heads": 2, "num_quantiles": 32}, "curvature_coef": 0.0}
OFF: dict[str, Any] = {"ib": False, "sem_mode": "none"}


def build(name: str = "vrpo", **options: Any) -> ActorCritic:
    algorithm = build_algorithm(name, options)
    assert isinstance(algorithm, ActorCritic)
    return algorithm


def bottleneck_weight(algorithm: ActorCritic) -> float:
    """beta_ib at this point of the run."""
    (piece,) = (piece for piece in algorithm.side.regularisers if isinstance(piece, Bottleneck))
    return piece.weight(algorithm.progress)


def critic_for(model: Path, algorithm: ActorCritic) -> CriticModel:
    return load_critic(ModelConfig(path=str(model)), algorithm.critic_config, seed=0)


# --- the latent ---


@given(
    mean=st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=8),
    logvar=st.lists(st.floats(-8.0, 4.0), min_size=8, max_size=8),
)
@CALM
def test_latent_kl_is_that_of_normal_laws(mean: list[float], logvar: list[float]) -> None:
    """Invariant 29: torch's own closed form; never negative."""
    m, v = torch.tensor(mean, dtype=F64), torch.tensor(logvar[: len(mean)], dtype=F64)
    law, standard = torch.distributions.Normal(m, (v / 2).exp()), torch.distributions.Normal(m * 0, m * 0 + 1)
    found = latent_kl(m, v)
    assert found.item() == pytest.approx(torch.distributions.kl_divergence(law, standard).sum().item(), abs=1e-9)
    assert found.item() >= 0.0


def test_latent_kl_is_zero_only_at_the_prior() -> None:
    """Invariant 29."""
    zero = torch.zeros(3, 5, dtype=F64)
    assert latent_kl(zero, zero).tolist() == [0.0] * 3
    for mean, logvar in ((1e-4, 0.0), (0.0, 1e-4), (0.0, -1e-4)):
        assert (latent_kl(zero + mean, zero + logvar) > 0).all()


def heads(dim: int = 6) -> BottleneckHeads:
    config = VariationalCriticConfig(num_heads=2, num_quantiles=3, bottleneck_dim=dim)
    found = BottleneckHeads(8, dim, config, seed=1)
    with torch.no_grad():
        found.quantiles.weight.mul_(300)
        found.logvar.weight.normal_(generator=torch.Generator().manual_seed(2))
    return found


def test_without_noise_the_latent_is_its_mean() -> None:
    """Invariant 29: deterministic; z = mu + exp(logvar / 2) * eps with noise, the MLP and the heads by hand."""
    module, hidden = heads(), torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = module(hidden)
        assert torch.equal(plain["quantile_values"], module(hidden)["quantile_values"])
        noise = torch.randn(7, 6, generator=torch.Generator().manual_seed(3))
        mean, logvar = module.mean(hidden), module.logvar(hidden).clamp(-8.0, 4.0)
        for eps, found in ((0.0, plain), (noise, module(hidden, noise))):
            z = mean + (logvar / 2).exp() * eps
            expected = module.quantiles(nn.functional.silu(module.trunk(z)))["quantile_values"]
            torch.testing.assert_close(found["quantile_values"], expected)
            torch.testing.assert_close(found["bottleneck_kl"], latent_kl(mean, logvar))
        module.logvar.bias.fill_(100.0)
        assert module(hidden)["bottleneck_kl"].max() < 0.5 * (math.exp(4.0) * 6 + 200)  # clamped at 4


def test_noise_belongs_to_the_row() -> None:
    """Neither other rows nor padding change it; it is standard normal."""
    module, seeds = heads(), torch.tensor([5, 6, 7])
    mask = torch.tensor([[False, True, True, False], [False, True, False, True], [False, False, False, False]])
    found = module.noise(seeds, mask)
    assert found.shape == (4, 6)
    assert torch.equal(found[2:], module.noise(seeds[1:], mask[1:]))
    assert torch.equal(found[:2], module.noise(seeds[:1], mask[:1, :3]))
    many = module.noise(torch.arange(40), torch.ones(40, 50, dtype=torch.bool))
    assert many.mean().abs() < 0.03 and many.std().item() == pytest.approx(1.0, abs=0.02)


# --- the frozen LM head ---


@given(seed=st.integers(0, 200), chunk=st.integers(1, 6), with_bias=st.booleans())
@CALM
def test_head_kl_and_its_gradient_in_chunks(seed: int, chunk: int, with_bias: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    hidden, frozen = (torch.randn(5, 4, generator=g, dtype=F64).requires_grad_() for _ in range(2))
    weight, up = torch.randn(9, 4, generator=g, dtype=F64), torch.randn(5, generator=g, dtype=F64)
    bias = torch.randn(9, generator=g, dtype=F64) if with_bias else None
    found = head_kl(hidden, frozen, weight, bias, chunk)
    logits = [nn.functional.linear(x, weight, bias) for x in (hidden, frozen.detach())]
    laws = [torch.distributions.Categorical(logits=z) for z in logits]
    expected = torch.distributions.kl_divergence(laws[1], laws[0])
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    one, two = (torch.autograd.grad((x * up).sum(), hidden)[0] for x in (found, expected))
    assert torch.allclose(one, two, rtol=1e-9, atol=1e-12)
    assert not head_kl(hidden.detach(), frozen, weight, bias).requires_grad


@pytest.mark.parametrize("mode", ["ppl_ent", "kl_ref"])
def test_outputs_of_the_frozen_head(mode: str, tiny_model: Path) -> None:
    """Before training the critic's body is the model: surprise and entropy are the model's, and the KL is 0."""
    batch = collate(random_samples(4))
    critic = critic_for(tiny_model, build(sem_mode=mode))
    lm = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids, mask = batch.token_ids, batch.action_mask
    with torch.no_grad():
        old = critic(ids, mask)
        logp = lm(input_ids=ids).logits.log_softmax(dim=-1)[:, :-1]
    nll = -logp.gather(-1, ids[:, 1:, None]).squeeze(-1)
    entropy = -(logp.exp() * logp).sum(dim=-1)
    kept = mask[:, 1:]
    torch.testing.assert_close(old["semantic_nll"][:, 1:][kept], nll[kept], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(old["semantic_entropy"][:, 1:][kept], entropy[kept], rtol=1e-4, atol=1e-4)
    assert "semantic_kl" not in old
    half = mask & (torch.arange(mask.shape[1]) % 2 == 0)
    with torch.no_grad():
        critic.body.get_input_embeddings().weight.mul_(1.5)
        moved = critic.body(input_ids=ids).last_hidden_state @ lm.get_output_embeddings().weight.T
        start = lm(input_ids=ids).logits
    found = critic(ids, mask, semantic_mask=half)
    assert {"semantic_kl"} == {k for k in found if k.startswith("semantic")} or mode == "ppl_ent"
    column = found["semantic_kl" if mode == "kl_ref" else "semantic_nll"]
    assert (column[~half] == 0).all() and (column[half] != 0).all()
    if mode == "kl_ref":
        p = [torch.distributions.Categorical(logits=z[:, :-1]) for z in (start, moved)]
        expected = torch.distributions.kl_divergence(p[0], p[1])
        torch.testing.assert_close(column[:, 1:][half[:, 1:]], expected[half[:, 1:]], rtol=1e-3, atol=1e-4)
    column.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in critic.body.parameters())
    assert critic.frozen_head is not None and not list(critic.frozen_head.parameters())
    assert not any("frozen" in name for name in critic.state_dict())  # no checkpoint holds it


def test_a_model_without_an_lm_head_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """A body alone, as of a reward model: its LM head would be random."""
    body = AutoModel.from_pretrained(tiny_model)
    body.config.tie_word_embeddings = False
    body.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no LM head, which sem_mode needs"):
        critic_for(tmp_path, build())
    critic_for(tmp_path, build(sem_mode="none"))


# --- the algorithm ---


def with_outputs(batch: TrainBatch, critic: CriticOutput, seed: int, kl: bool = False) -> CriticOutput:
    """A critic's output with random regulariser columns."""
    g = torch.Generator().manual_seed(seed)
    names = ["bottleneck_kl", "semantic_kl"] if kl else ["bottleneck_kl", "semantic_nll", "semantic_entropy"]
    columns = {name: 14.0 * torch.rand(batch.rewards.shape, generator=g, dtype=F64) for name in names}
    return replace(critic, **columns)


@given(seed=st.integers(0, 500), name=st.sampled_from(["vrpo", "vrpo-dvpo"]))
@CALM
def test_without_filters_it_is_the_method_beside_it(seed: int, name: str) -> None:
    """Invariant 3: bit for bit, down to the shape of the model."""
    options = {} if name == "vrpo" else SMALL
    plain = build_algorithm("ppo" if name == "vrpo" else "dvpo", options)
    neutral = build(name, **OFF, **options)
    assert neutral.critic_config == plain.critic_config
    batch = make_batch(seed)
    old = make_old(plain, batch, seed)
    assert old.critic is not None
    one, two = (a.estimate(batch, old, SingleProcess()) for a in (neutral, plain))
    assert torch.equal(one.advantages, two.advantages) and len(one.extra) == len(two.extra)
    assert neutral.critic_inputs(batch, one, 3) == plain.critic_inputs(batch, two, 3)
    output = replace(old.critic, quantile_values=old.critic.quantile_values + 0.1)
    losses = [a.critic_loss(output, batch, e, counts(batch)).loss for a, e in ((neutral, one), (plain, two))]
    assert torch.equal(*losses)


def test_without_filters_training_is_ppo_bit_for_bit(make_learner: MakeLearner) -> None:
    """Invariant 3, through the model and the learner."""
    samples, ends = random_samples(6), []
    for name, options in (("ppo", {}), ("vrpo", OFF)):
        learner = make_learner(name, options)
        learner.update(samples, 0)
        assert learner.critic is not None
        ends.append(dict(learner.critic.full_weights()))
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())


@given(seed=st.integers(0, 500), share=st.sampled_from([0.1, 0.2, 0.5, 1.0]))
@CALM
def test_selected_tokens(seed: int, share: float) -> None:
    """The top share of either column over all ranks; nothing outside the mask."""
    batch = make_batch(seed)
    g = torch.Generator().manual_seed(seed)
    columns = tuple(torch.rand(batch.rewards.shape, generator=g, dtype=F64) for _ in range(2))
    found = select_tokens(columns, batch.action_mask, share, SingleProcess())
    total = int(batch.action_mask.sum())
    for t in batch.action_mask.nonzero():
        ranks = [int((c[batch.action_mask] > c[tuple(t)]).sum()) for c in columns]
        if min(ranks) + 1 <= share * total - 0.5 or min(ranks) >= share * total + 0.5:
            assert bool(found[tuple(t)]) == (min(ranks) < share * total)
    assert not found[~batch.action_mask].any()
    rows = [torch.tensor([3, 0, 7]), torch.tensor([6, 5, 1, 2, 4])]
    parts = on_ranks(
        2,
        lambda w: select_tokens(tuple(c[rows[w.rank]] for c in columns), batch.action_mask[rows[w.rank]], share, w),
    )
    assert all(torch.equal(part, found[mine]) for part, mine in zip(parts, rows, strict=True))


@pytest.mark.parametrize("mode", ["ppl_ent", "kl_ref", "none"])
def test_the_loss_is_the_sum_of_its_terms(mode: str) -> None:
    """L_value + beta_ib * L_ib + L_sem with means over the selected tokens, cap on surprise."""
    weights: dict[str, dict[str, Any]] = {"ppl_ent": {"ppl_coef": 0.7, "ent_coef": 0.2}, "kl_ref": {"ppl_coef": 0.7}}
    algorithm = build(sem_mode=mode, ib_coef=0.3, ib_anneal_frac=0.5, **weights.get(mode, {}))
    plain, batch = build_algorithm("ppo"), make_batch(1)
    old = make_old(plain, batch, 2)
    assert old.critic is not None
    old = replace(old, critic=with_outputs(batch, old.critic, 3))
    algorithm.begin_update(1, 10)  # a tenth of the run, a fifth of the way to the full weight
    assert bottleneck_weight(algorithm) == pytest.approx(0.06)
    estimates, same = (a.estimate(batch, old, SingleProcess()) for a in (algorithm, plain))
    assert old.critic is not None
    output = with_outputs(batch, old.critic, 4, kl=mode == "kl_ref")
    value = plain.critic_loss(output, batch, same, counts(batch)).loss.item()
    mask = batch.action_mask
    assert output.bottleneck_kl is not None
    expected = value + 0.06 * output.bottleneck_kl[mask].mean().item()
    if mode != "none":
        selected = torch.zeros_like(mask)
        for name in ("semantic_entropy", "semantic_nll"):
            column = getattr(old.critic, name)
            selected |= mask & (column >= quantile_at(column[mask].sort().values, 0.8))
        assert algorithm.critic_inputs(batch, estimates, 0)["semantic_mask"].equal(selected)
        metrics = to_floats(estimates.metrics)
        assert metrics["critic/semantic_frac"] == pytest.approx(float(selected.sum() / mask.sum()))
    if mode == "ppl_ent":
        assert output.semantic_nll is not None and output.semantic_entropy is not None
        nll, entropy = output.semantic_nll[selected], output.semantic_entropy[selected]
        expected += 0.7 * nll.clamp(max=10.0).mean().item() + 0.2 * entropy.mean().item()
    elif mode == "kl_ref":
        assert output.semantic_kl is not None
        expected += 0.7 * output.semantic_kl[selected].mean().item()
    result = algorithm.critic_loss(output, batch, estimates, counts(batch))
    assert result.loss.item() == pytest.approx(expected, rel=1e-9)
    found = to_floats(result.metrics)
    assert found["critic/bottleneck_kl_weighted"] == pytest.approx(0.06 * found["critic/bottleneck_kl"])
    parts = 0.0
    for rows in (torch.tensor([6, 1]), torch.tensor([0, 2, 3, 4, 5]), torch.tensor([7])):  # invariant 23
        columns = {name: column[rows] for name, column in output.optional().items()}
        part = CriticOutput(output.quantile_values[rows], output.raw_crossing_frac[rows], **columns)
        parts += algorithm.critic_loss(part, batch.rows(rows), estimates.rows(rows), counts(batch)).loss.item()
    assert parts == pytest.approx(expected, rel=1e-9)


def test_annealing_and_noise_seeds() -> None:
    algorithm, batch = build(ib_coef=2.0), make_batch(0)
    weights = []
    for update in (0, 5, 10, 90):
        algorithm.begin_update(update, 100)
        weights.append(bottleneck_weight(algorithm))
    assert weights == pytest.approx([0.0, 1.0, 2.0, 2.0])
    assert bottleneck_weight(build(ib_coef=2.0, ib_anneal_frac=0.0)) == 2.0
    estimates = Estimates(batch.rewards, extra={algorithm.side.regularisers[1]: SelectedTokens(batch.rewards)})
    seeds = [algorithm.critic_inputs(batch, estimates, step)["noise_seeds"] for step in (0, 0, 1)]
    assert torch.equal(seeds[0], seeds[1]) and not (seeds[0] == seeds[2]).any()
    assert (torch.stack(seeds) >= 0).all() and len(set(seeds[0].tolist())) == len(batch)


# --- the learner ---


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("vrpo", {"num_epochs": 2, "num_minibatches": 2}, marks=pytest.mark.slow),
        ("vrpo-kl", {}),
        pytest.param("vrpo-dvpo", {**SMALL, "bootstrap_truncated": True}, marks=pytest.mark.slow),
        pytest.param("cql-contrast", {"num_minibatches": 2}, marks=pytest.mark.slow),
    ],
)
def test_the_split_into_micro_batches_changes_nothing(
    name: str, options: dict[str, Any], make_learner: MakeLearner
) -> None:
    """Invariant 23: the latent's noise, the selection and the mismatched rows do not depend on it either."""
    curves, ends = [], []
    for tokens in (10_000, 60, 1):
        config = LearnerConfig(policy_lr=1e-3, critic_lr=1e-3, adam_eps=1e-3, micro_batch_tokens=tokens)
        learner = make_learner(name, options, config)
        curves.append([to_floats(learner.update(random_samples(9, seed), seed).metrics) for seed in range(2)])
        assert learner.critic is not None
        ends.append(dict(learner.critic.full_weights()))
    for other, end in zip(curves[1:], ends[1:], strict=True):
        for found, wanted in zip(other, curves[0], strict=True):
            for key in (k for k in wanted if not k.startswith("learner/")):
                assert found[key] == pytest.approx(wanted[key], rel=2e-3, abs=1e-4), key
        for weight, name_ in ((end[k], k) for k in end):
            torch.testing.assert_close(weight, ends[0][name_], rtol=0, atol=2e-5)


def test_the_checkpoint_knows_the_latent(tiny_model: Path) -> None:
    with_latent = critic_shape(critic_for(tiny_model, build(ib_dim=64, sem_mode="none")))
    without = critic_shape(critic_for(tiny_model, build(**OFF)))
    assert with_latent == {**without, "bottleneck_dim": 64}


def test_noise_needs_a_bottleneck(tiny_model: Path) -> None:
    batch = collate(random_samples(2))
    critic = critic_for(tiny_model, build(**OFF))
    with pytest.raises(ValueError, match="this one has none"):
        critic(batch.token_ids, batch.action_mask, noise_seeds=batch.sample_seeds)


def test_training_uses_noise_and_evaluation_does_not(tiny_model: Path) -> None:
    """Invariant 29."""
    batch = collate(random_samples(4))
    critic = critic_for(tiny_model, build(sem_mode="none"))
    with torch.no_grad():
        assert isinstance(critic.heads, BottleneckHeads)
        critic.heads.quantiles.weight.mul_(1000)

        def values(**inputs: Tensor) -> Tensor:
            found: Tensor = critic(batch.token_ids, batch.action_mask, **inputs)["quantile_values"]
            return found

        assert torch.equal(values(), values())
        noisy = values(noise_seeds=batch.sample_seeds)
        assert torch.equal(noisy, values(noise_seeds=batch.sample_seeds))
    changed = (noisy != values()).squeeze(-1).squeeze(-1)
    assert torch.equal(changed, batch.action_mask)
