"""The latent of a state with noise against that of the state: the KL, its gradient, its noise, its place in a loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from learner.algorithms.catalogue import build_algorithm
from learner.metrics import to_floats
from learner.models.bottleneck import BottleneckHeads, latent_gap
from learner.models.spec import CriticConfig
from learner.update.learner import Learner
from rollout.component import UserError
from tests.learner.plain_learner import random_samples

SCALAR = CriticConfig(num_heads=1, num_quantiles=1)
F64 = torch.float64


def test_the_gap_is_the_kl_of_two_normal_laws() -> None:
    g = torch.Generator().manual_seed(0)
    one, two, v, w = (torch.randn(5, 3, generator=g, dtype=F64) for _ in range(4))
    laws = [Independent(Normal(m, (s / 2).exp()), 1) for m, s in ((one, v), (two, w))]
    torch.testing.assert_close(latent_gap(one, v, two, w), kl_divergence(*laws))
    assert latent_gap(one, v, one, v).tolist() == [0.0] * 5
    leaves = [x.requires_grad_() for x in (one, v, two, w)]
    torch.autograd.gradcheck(latent_gap, leaves)


def heads(noise: float) -> BottleneckHeads:
    found = BottleneckHeads(16, 4, SCALAR, seed=1, perturbation=noise)
    with torch.no_grad():
        found.logvar.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(2))
    return found


def test_noise_is_in_proportion_to_the_state_and_belongs_to_its_row() -> None:
    g = torch.Generator().manual_seed(3)
    mask = torch.tensor([[False, True, True, False], [True, True, True, True]])
    states = torch.randn(6, 16, generator=g) * torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0, 1.0])[:, None]
    seeds = torch.tensor([11, 12])
    found = heads(0.5).perturbed(states, seeds, mask)
    for row, (seed, rows) in enumerate(((11, range(2)), (12, range(2, 6)))):
        eps = torch.randn(len(rows), 16, generator=torch.Generator().manual_seed(seed))
        for place, state in enumerate(rows):
            size = sum(x * x for x in states[state].tolist()) ** 0.5 / 4.0
            expected = states[state] + 0.5 * size * eps[place]
            torch.testing.assert_close(found[state], expected, msg=f"row {row}, token {place}")
    alone = heads(0.5).perturbed(states[2:], seeds[1:], mask[1:])
    assert torch.equal(alone, found[2:])


def test_more_noise_moves_the_latent_more_and_training_against_it_moves_it_less() -> None:
    g = torch.Generator().manual_seed(4)
    mask, seeds = torch.ones(1, 40, dtype=torch.bool), torch.tensor([5])
    states = torch.randn(40, 16, generator=g)
    gaps = [float(heads(noise).gap(states, seeds, mask).mean().detach()) for noise in (0.01, 0.1, 1.0)]
    assert 0.0 < gaps[0] < gaps[1] / 10 and gaps[1] < gaps[2] / 10
    model = heads(0.1)
    optimizer = torch.optim.SGD([*model.mean.parameters(), *model.logvar.parameters()], lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        model.gap(states, seeds, mask).mean().backward()
        optimizer.step()
    assert float(model.gap(states, seeds, mask).mean().detach()) < 0.8 * gaps[1]


def test_it_is_part_of_the_critics_loss(make_learner: Callable[..., Learner]) -> None:
    """The loss of a critic with it is that without, plus its weight times its mean; and it is told."""
    losses = {}
    for coef in (0.0, 0.5):
        extra = [{"type": "noise_augmented", "coef": coef, "noise": 0.2}] if coef else []
        learner = make_learner("ppo", {"regularisers": ["bottleneck", *extra]}, num_updates=10)
        losses[coef] = to_floats(learner.update(random_samples(8), 0).metrics)
    found = losses[0.5]
    assert found["critic/perturbed_kl"] > 0.0
    assert found["critic/perturbed_kl_weighted"] == pytest.approx(0.5 * found["critic/perturbed_kl"])
    expected = losses[0.0]["critic/loss"] + found["critic/perturbed_kl_weighted"]
    assert found["critic/loss"] == pytest.approx(expected, rel=1e-5)


def test_it_needs_a_bottleneck() -> None:
    with pytest.raises(UserError, match=r"algorithm\.regularisers: noise_augmented compares latents"):
        build_algorithm("vrpo", {"regularisers": ["semantic", "noise_augmented"]})
