"""The categorical head and its cross-entropy: laws over bins by hand, C51 and the binary case as special ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.critic.terms.base import TokenView
from learner.algorithms.critic.terms.cross_entropy import CrossEntropy
from learner.maths.losses.categorical import bin_centres, gauss_histogram, two_hot
from learner.metrics import to_floats
from learner.models.categorical import CategoricalHeads
from learner.models.spec import CriticConfig, CriticOutput
from rollout.component import UserError

F64 = torch.float64


def normal_cdf(x: float) -> float:
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))


@given(
    value=st.floats(-2.0, 3.0), low=st.floats(-1.0, 0.0), width=st.floats(0.5, 3.0), num=st.integers(2, 12),
    ratio=st.floats(0.3, 2.0),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_laws_over_bins_equal_the_formulas(value: float, low: float, width: float, num: int, ratio: float) -> None:
    centres = torch.linspace(low, low + width, num, dtype=F64)
    step = width / (num - 1)
    inside = min(max(value, low), low + width)
    split, smeared = [0.0] * num, []
    place = (inside - low) / step
    below = min(int(place), num - 2)
    split[below], split[below + 1] = below + 1 - place, place - below
    for i in range(num):
        left, right = low + (i - 0.5) * step, low + (i + 0.5) * step
        smeared.append(normal_cdf((right - inside) / (ratio * step)) - normal_cdf((left - inside) / (ratio * step)))
    whole = sum(smeared)
    of = torch.tensor(value, dtype=F64)
    assert two_hot(of, centres).tolist() == pytest.approx(split, abs=1e-9)
    assert float(two_hot(of, centres) @ centres) == pytest.approx(inside, abs=1e-9)
    assert gauss_histogram(of, centres, ratio).tolist() == pytest.approx([mass / whole for mass in smeared], abs=1e-9)


def view_of(logits: torch.Tensor, targets: torch.Tensor) -> TokenView:
    mask = torch.ones(logits.shape[0], 1, dtype=torch.bool)
    output = CriticOutput(torch.zeros(*logits.shape[:2], 1), torch.zeros(len(logits), 1), bin_logits=logits[:, None])
    return TokenView(values=output.quantile_values, targets=targets, output=output, action_mask=mask)


def term(projection: str, critic: CriticConfig, **options: Any) -> CrossEntropy:
    made = CrossEntropy(CrossEntropy.Config(projection=projection, **options))
    assert made.misfit(critic) == ""
    made.bind(critic)
    return made


def test_two_bins_are_the_binary_cross_entropy() -> None:
    g = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(7, 3, 2, generator=g, dtype=F64), torch.rand(7, 1, generator=g, dtype=F64)
    critic = CriticConfig(head="categorical", num_quantiles=1, num_bins=2)
    found = term("two_hot", critic)(view_of(logits, targets))
    for n in range(7):
        for head in range(3):
            p = 1 / (1 + math.exp(float(logits[n, head, 0] - logits[n, head, 1])))
            y = float(targets[n])
            assert float(found[n, head]) == pytest.approx(-y * math.log(p) - (1 - y) * math.log(1 - p), rel=1e-6)


def test_several_atoms_are_c51s_projection_of_their_law() -> None:
    """1707.06887, Algorithm 1: each atom's mass is split between its neighbours, and laws are compared."""
    g = torch.Generator().manual_seed(1)
    logits, atoms = torch.randn(1, 1, 6, generator=g, dtype=F64), torch.rand(1, 9, generator=g, dtype=F64) * 3 - 1
    critic = CriticConfig(head="categorical", num_quantiles=1, num_bins=6, value_low=-0.5, value_high=1.5)
    mass = [0.0] * 6
    for atom in atoms[0].tolist():
        b = (min(max(atom, -0.5), 1.5) + 0.5) / (2.0 / 5)
        lower, upper = math.floor(b), math.ceil(b)
        if lower == upper:
            mass[lower] += 1 / 9
        else:
            mass[lower] += (upper - b) / 9
            mass[upper] += (b - lower) / 9
    log_p = logits[0, 0].log_softmax(dim=-1).tolist()
    c51 = term("two_hot", critic)
    expected = -sum(m * x for m, x in zip(mass, log_p, strict=True))
    assert float(c51(view_of(logits, atoms))) == pytest.approx(expected, rel=1e-6)
    outside = sum(not -0.5 <= atom <= 1.5 for atom in atoms[0].tolist())
    shown = to_floats(c51.metrics(view_of(logits, atoms)))
    assert outside and shown == {"critic/out_of_bins_frac": pytest.approx(outside / 9)}


@pytest.mark.parametrize("projection", ["two_hot", "hl_gauss"])
def test_the_head_learns_the_mean(projection: str) -> None:
    """The minimiser's mean is that of the targets; HL-Gauss cuts its normal law at the ends, so nearly."""
    critic = CriticConfig(head="categorical", num_quantiles=1, num_heads=2, num_bins=21)
    heads = CategoricalHeads(4, critic, seed=0)
    hidden = torch.ones(10, 4)
    targets = torch.tensor([[0.0]] * 7 + [[1.0]] * 3)
    loss_of = term(projection, critic)
    optimiser = torch.optim.Adam(heads.parameters(), lr=0.05)
    start = heads(hidden)["quantile_values"]
    assert torch.allclose(start, torch.tensor(0.5), atol=0.01) and not torch.equal(start[:, 0], start[:, 1])
    for _ in range(300):
        optimiser.zero_grad()
        loss_of(view_of(heads(hidden)["bin_logits"], targets)).mean().backward()
        optimiser.step()
    values = heads(hidden)["quantile_values"]
    assert values.shape == (10, 2, 1)
    assert values.flatten().tolist() == pytest.approx([0.3] * 20, abs=0.005 if projection == "two_hot" else 0.03)
    low, high, num = critic.bins
    by_hand = heads(hidden)["bin_logits"].softmax(-1) @ bin_centres(low, high, num)
    assert torch.allclose(values.squeeze(-1), by_hand)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ppo", {"critic": {"num_bins": 11}}, "num_bins has no effect without head 'categorical'"),
        ("hl-gauss", {"critic": {"value_low": 2.0}}, "value_low must be below value_high, got 2 and 1"),
        ("hl-gauss", {"critic": {"prior_mean": 0.3}}, "prior_mean has no effect with head 'categorical'"),
        ("dvpo", {"critic": {"head": "categorical"}}, "num_quantiles must be 1"),
        ("ppo", {"terms": ["cross_entropy"]}, "cross_entropy is for a critic of bins, and critic.head is 'quantile'"),
        ("c51", {"terms": [{"type": "cross_entropy", "projection": "two_hot", "sigma_ratio": 1.0}]}, "sigma_ratio has"),
        ("vrpo", {"critic": {"head": "categorical"}}, "a categorical head does not go on a latent"),
        ("hl-gauss", {"value_clip": 0.1}, "value_clip"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_algorithm(name, options)
    assert message in str(caught.value)
