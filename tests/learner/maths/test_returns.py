"""GAE, lambda-returns and distributional targets against the token-by-token loop. Numbers name the invariants."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.maths.quantiles.quantiles import midpoint_taus
from learner.maths.returns import discounted_returns, gae, lambda_returns, mixture_targets, quantile_gae
from tests.learner.oracles import gae_loop

F64 = torch.float64
CALM = settings(max_examples=40, deadline=None)
UNIT = st.sampled_from([0.0, 0.3, 0.9, 0.95, 1.0])


class Case(NamedTuple):
    """Random rows with action, observation and padding tokens."""

    rewards: Tensor
    values: Tensor
    quantiles: Tensor
    mask: Tensor
    bootstrap: Tensor


def case(seed: int, batch: int = 4, seq: int = 17, num: int = 8, density: float = 0.6) -> Case:
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.randn(shape, generator=g, dtype=F64)  # noqa: E731
    mask = torch.rand((batch, seq), generator=g) < density
    mask[0] = False  # a row without an action
    return Case(
        rand(batch, seq),
        rand(batch, seq),
        rand(batch, seq, num).sort(-1).values,
        mask,
        rand(batch, num).sort(-1).values,
    )


def generators(rows: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 * seed + row) for row in range(rows)]


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


# --- scalar GAE ---


def test_golden_numbers_with_an_observation() -> None:
    """By hand: actions at 1, 2 and 4, an observation at 3 with reward 2, which belongs to the action at 2."""
    mask = torch.tensor([[False, True, True, False, True, False]])
    rewards = torch.tensor([[9.0, 1.0, 0.0, 2.0, 4.0, 0.0]], dtype=F64)
    values = torch.tensor([[7.0, 1.0, 2.0, 7.0, 3.0, 7.0]], dtype=F64)
    advantages, returns = gae(rewards, values, mask, 0.5, 0.5)
    # t=4: 4 - 3 = 1; t=2: delta = 2 + .5*3 - 2 = 1.5, A = 1.5 + .25*1; t=1: delta = 1 + .5*2 - 1, A = 1 + .25*1.75
    assert advantages.tolist() == [[0.0, 1.4375, 1.75, 0.0, 1.0, 0.0]]
    assert returns.tolist() == [[0.0, 2.4375, 3.75, 0.0, 4.0, 0.0]]
    assert discounted_returns(rewards, mask, 0.5).tolist() == [[0.0, 3.0, 4.0, 0.0, 4.0, 0.0]]
    cut, _ = gae(rewards, values, mask, 0.5, 0.5, torch.tensor([8.0], dtype=F64))
    assert cut[0, 4].item() == 5.0


@given(
    seed=st.integers(0, 10_000),
    gamma=UNIT,
    lam=UNIT,
    seq=st.integers(1, 40),
    density=st.floats(0.0, 1.0),
    bootstrapped=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_scan_equals_the_loop(
    seed: int, gamma: float, lam: float, seq: int, density: float, bootstrapped: bool
) -> None:
    c = case(seed, seq=seq, density=density)
    last = c.bootstrap[:, 0] if bootstrapped else None
    slow = gae_loop(c.rewards, c.values, c.mask, gamma, lam, last)
    fast = gae(c.rewards, c.values, c.mask, gamma, lam, last)
    assert close(fast[0], slow[0])
    assert close(fast[1], slow[1])


def test_a_thousand_tokens_in_float32() -> None:
    c = case(3, seq=1000)
    slow, _ = gae_loop(c.rewards, c.values, c.mask, 1.0, 0.95)
    fast, _ = gae(c.rewards.float(), c.values.float(), c.mask, 1.0, 0.95)
    assert fast.dtype == torch.float32
    assert torch.allclose(fast.double(), slow, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 1000), gamma=UNIT, lam=UNIT)
@CALM
def test_equals_dropping_all_other_positions(seed: int, gamma: float, lam: float) -> None:
    """Method 2.1: identical to plain GAE on the action positions alone."""
    c = case(seed)
    rewards = torch.where(c.mask, c.rewards, torch.zeros((), dtype=F64))
    advantages, _ = gae(rewards, c.values, c.mask, gamma, lam)
    for b in range(1, 4):
        keep = c.mask[b]
        alone, _ = gae(rewards[b, keep][None], c.values[b, keep][None], torch.ones_like(keep[keep])[None], gamma, lam)
        assert close(advantages[b, keep], alone[0])


@given(seed=st.integers(0, 1000), where=st.integers(0, 17), gamma=UNIT, lam=UNIT)
@CALM
def test_observations_and_padding_change_nothing(seed: int, where: int, gamma: float, lam: float) -> None:
    """Invariant 7, first half, for the scalar, quantile-wise and mixture targets: insert 3 observation tokens."""
    c = case(seed)
    c = c._replace(mask=c.mask.clone())

    def insert(x: Tensor, fill: float) -> Tensor:
        filler = torch.full((x.shape[0], 3, *x.shape[2:]), fill, dtype=x.dtype)
        return torch.cat([x[:, :where], filler, x[:, where:]], dim=1)

    mask = insert(c.mask, False)
    rewards, values, quantiles = insert(c.rewards, 0.0), insert(c.values, torch.nan), insert(c.quantiles, torch.nan)
    assert close(
        gae(rewards, values, mask, gamma, lam)[0][mask], gae(c.rewards, c.values, c.mask, gamma, lam)[0][c.mask]
    )
    wide, narrow = (
        quantile_gae(r, q, m, gamma, lam)[1][m]
        for r, q, m in ((rewards, quantiles, mask), (c.rewards, c.quantiles, c.mask))
    )
    assert close(wide, narrow)
    wide, narrow = (
        mixture_targets(r, q, m, gamma, lam, generators(4, seed))[m]
        for r, q, m in ((rewards, quantiles, mask), (c.rewards, c.quantiles, c.mask))
    )
    assert close(wide, narrow)


@given(seed=st.integers(0, 1000), gamma=UNIT, lam=UNIT)
@CALM
def test_a_reward_may_sit_on_the_following_observation(seed: int, gamma: float, lam: float) -> None:
    """Invariant 7, second half."""
    c = case(seed)
    follows = torch.cat([c.mask[:, :-1] & ~c.mask[:, 1:], torch.zeros_like(c.mask[:, :1])], dim=1)
    moved = torch.where(follows, torch.zeros((), dtype=F64), c.rewards)
    moved[:, 1:] += torch.where(follows, c.rewards, torch.zeros((), dtype=F64))[:, :-1]
    assert close(gae(moved, c.values, c.mask, gamma, lam)[0], gae(c.rewards, c.values, c.mask, gamma, lam)[0])
    a, b = (mixture_targets(r, c.quantiles, c.mask, gamma, lam, generators(4)) for r in (moved, c.rewards))
    assert close(a, b)


@given(seed=st.integers(0, 1000), lam=UNIT, shift=st.floats(-5.0, 5.0), scale=st.floats(0.1, 10.0), gamma=UNIT)
@CALM
def test_shift_and_scale(seed: int, lam: float, shift: float, scale: float, gamma: float) -> None:
    """Invariant 8."""
    c = case(seed)
    plain = quantile_gae(c.rewards, c.quantiles, c.mask, 1.0, lam, c.bootstrap)[0]
    shifted = quantile_gae(c.rewards, c.quantiles + shift, c.mask, 1.0, lam, c.bootstrap + shift)[0]
    assert close(plain, shifted)
    one = quantile_gae(c.rewards, c.quantiles, c.mask, gamma, lam)
    two = quantile_gae(scale * c.rewards, scale * c.quantiles, c.mask, gamma, lam)
    assert close(scale * one[0], two[0])
    assert close(scale * one[1], two[1])
    mixed = [mixture_targets(k * c.rewards, k * c.quantiles, c.mask, gamma, lam, generators(4)) for k in (1.0, scale)]
    assert close(scale * mixed[0], mixed[1])


@given(seed=st.integers(0, 1000), gamma=UNIT, lam=UNIT, cut=st.integers(1, 16))
@CALM
def test_packed_rows_equal_separate_rows(seed: int, gamma: float, lam: float, cut: int) -> None:
    """Invariant 10: two trajectories in one row, with and without a bootstrap at the end of each."""
    c = case(seed)
    segments = (torch.arange(17) >= cut).long().expand(4, 17)
    parts = [slice(0, cut), slice(cut, 17)]
    ends = torch.stack([c.bootstrap[:, 0], c.bootstrap[:, 1]], dim=1)  # of each segment
    for last in (None, ends):
        packed = gae(
            c.rewards,
            c.values,
            c.mask,
            gamma,
            lam,
            None if last is None else last.gather(1, segments),
            segment_ids=segments,
        )
        for k, part in enumerate(parts):
            alone = gae(
                c.rewards[:, part], c.values[:, part], c.mask[:, part], gamma, lam, None if last is None else last[:, k]
            )
            assert close(packed[0][:, part], alone[0])
            assert close(packed[1][:, part], alone[1])


def test_packed_mixture_stays_inside_segments() -> None:
    """Invariant 10 for the mixture at lam = 0, where no draw matters: the next quantiles come from the same segment."""
    c = case(5)
    segments = (torch.arange(17) >= 8).long().expand(4, 17)
    packed = mixture_targets(c.rewards, c.quantiles, c.mask, 0.9, 0.0, generators(4), segment_ids=segments)
    for part in (slice(0, 8), slice(8, 17)):
        alone = mixture_targets(c.rewards[:, part], c.quantiles[:, part], c.mask[:, part], 0.9, 0.0, generators(4))
        assert close(packed[:, part], alone)


def test_lambda_per_row() -> None:
    c = case(2)
    lams = torch.tensor([0.1, 0.5, 0.95, 1.0], dtype=F64)
    together, _ = gae(c.rewards, c.values, c.mask, 0.99, lams)
    for b in range(4):
        row = slice(b, b + 1)
        alone, _ = gae(c.rewards[row], c.values[row], c.mask[row], 0.99, float(lams[b]))
        assert close(together[row], alone)
    with pytest.raises(ValueError, match="lam must be in"):
        gae(c.rewards, c.values, c.mask, 0.99, 1.5)


def test_masked_positions_never_leak() -> None:
    """Invariant 22: NaN and infinity at positions that are no actions."""
    c = case(7)
    rewards, values = c.rewards.masked_fill(~c.mask, torch.nan), c.values.masked_fill(~c.mask, torch.inf)
    clean = c.rewards.masked_fill(~c.mask, 0.0)
    assert close(gae(rewards, values, c.mask, 0.9, 0.5)[0], gae(clean, c.values, c.mask, 0.9, 0.5)[0])
    q = c.quantiles.masked_fill(~c.mask[..., None], torch.nan)
    one = mixture_targets(rewards, q, c.mask, 0.9, 0.5, generators(4))
    assert close(one, mixture_targets(clean, c.quantiles, c.mask, 0.9, 0.5, generators(4)))
    assert one.isfinite().all()


def test_everything_is_detached() -> None:
    """Invariant 23: nothing carries a gradient."""
    c = case(1)
    v, q = c.values.requires_grad_(), c.quantiles.requires_grad_()
    results = [*gae(c.rewards, v, c.mask, 0.9, 0.9), *quantile_gae(c.rewards, q, c.mask, 0.9, 0.9)]
    results.append(mixture_targets(c.rewards, q, c.mask, 0.9, 0.9, generators(4)))
    assert not any(x.requires_grad for x in results)


# --- distributional targets ---


@given(seed=st.integers(0, 1000), gamma=UNIT, lam=UNIT)
@CALM
def test_any_weights_that_sum_to_one_commute_with_gae(seed: int, gamma: float, lam: float) -> None:
    """Invariant 4 (F1), and that it fails for other sums, because of r."""
    c = case(seed)
    weights = torch.rand(8, generator=torch.Generator().manual_seed(seed), dtype=F64)
    weights = weights / weights.sum()
    each, _ = quantile_gae(c.rewards, c.quantiles, c.mask, gamma, lam)
    assert close(each.mean(-1), gae(c.rewards, c.quantiles.mean(-1), c.mask, gamma, lam)[0])
    assert close(each @ weights, gae(c.rewards, c.quantiles @ weights, c.mask, gamma, lam)[0])
    if c.mask.any():
        double, _ = gae(c.rewards, c.quantiles @ (2 * weights), c.mask, gamma, lam)
        assert not close(each @ (2 * weights), double, 1e-6)


@given(seed=st.integers(0, 1000), gamma=st.floats(0.0, 1.0), lam=st.floats(0.0, 1.0), narrow=st.booleans())
@CALM
def test_sorted_values_give_sorted_targets(seed: int, gamma: float, lam: float, narrow: bool) -> None:
    """Invariant 5 (F2), exactly, in float32 and float64."""
    c = case(seed)
    q = c.quantiles.float() if narrow else c.quantiles
    _, targets = quantile_gae(c.rewards.to(q), q, c.mask, gamma, lam, c.bootstrap.to(q))
    assert (targets.diff(dim=-1) >= 0).all()


@given(seed=st.integers(0, 1000), gamma=UNIT)
@CALM
def test_both_ends_of_lambda(seed: int, gamma: float) -> None:
    """Invariant 6 (F3)."""
    c = case(seed)
    point = discounted_returns(c.rewards, c.mask, gamma)[..., None].expand_as(c.quantiles)
    assert close(quantile_gae(c.rewards, c.quantiles, c.mask, gamma, 1.0)[1], point)
    assert close(mixture_targets(c.rewards, c.quantiles, c.mask, gamma, 1.0, generators(4)), point)
    one_step = quantile_gae(c.rewards, c.quantiles, c.mask, gamma, 0.0, c.bootstrap)[1]
    assert close(mixture_targets(c.rewards, c.quantiles, c.mask, gamma, 0.0, generators(4), c.bootstrap), one_step)
    for b in range(4):
        actions = c.mask[b].nonzero()[:, 0].tolist()
        for t, following in pairwise(actions):
            reward = c.rewards[b, t:following].sum()
            assert close(one_step[b, t], reward + gamma * c.quantiles[b, following])


def test_mixture_mean_is_the_scalar_lambda_return() -> None:
    """Invariant 9 (F5): Monte Carlo within 3 standard errors at every token; lam * M not an integer included."""
    c = case(11, seq=12)
    exact = gae(c.rewards, c.quantiles.mean(-1), c.mask, 0.97, 0.83)[1]
    draws = torch.stack(
        [mixture_targets(c.rewards, c.quantiles, c.mask, 0.97, 0.83, generators(4, n)).mean(-1) for n in range(400)]
    )
    error = (draws.mean(0) - exact)[c.mask].abs()
    spread = draws.std(0)[c.mask] / 400**0.5
    z = error[spread > 1e-12] / spread[spread > 1e-12]
    assert (error[spread <= 1e-12] < 1e-9).all()
    assert float(z.max()) < 4.0  # the largest of about 30
    assert float((z < 3.0).double().mean()) > 0.95


def test_mixture_replaces_the_right_number_of_slots() -> None:
    """With Q = 0 after a return of 1, the mean of the atoms is the share that was not replaced: exact for integers."""
    mask = torch.ones(1, 2, dtype=torch.bool)
    rewards, q = torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2, 40)
    atoms = mixture_targets(rewards, q, mask, 1.0, 0.95, generators(1))
    assert float(atoms[0, 0].mean()) == pytest.approx(0.95, abs=1e-6)
    counts = [
        float((mixture_targets(rewards, q, mask, 1.0, 0.96, generators(1, n))[0, 0] == 0).sum()) for n in range(600)
    ]
    assert set(counts) == {1.0, 2.0}  # 1.6 on average
    assert sum(counts) / 600 == pytest.approx(1.6, abs=3 * (0.24 / 600) ** 0.5)


def test_mixture_does_not_depend_on_the_other_rows() -> None:
    """One generator per row: a row's atoms are the same alone, in another order, or beside longer rows."""
    c = case(4, seq=80)
    whole = mixture_targets(c.rewards, c.quantiles, c.mask, 1.0, 0.9, generators(4))
    order = [2, 0, 3]
    some = mixture_targets(
        c.rewards[order], c.quantiles[order], c.mask[order], 1.0, 0.9, [generators(4)[row] for row in order]
    )
    assert torch.equal(some, whole[order])
    short = c.mask.clone()
    short[1:, 40:] = False
    alone = mixture_targets(c.rewards[3:], c.quantiles[3:], short[3:], 1.0, 0.9, generators(4)[3:])
    beside = mixture_targets(
        c.rewards[[1, 3]],
        c.quantiles[[1, 3]],
        torch.stack([c.mask[1], short[3]]),
        1.0,
        0.9,
        [generators(4)[1], generators(4)[3]],
    )
    assert torch.equal(alone[0], beside[1])
    again = mixture_targets(c.rewards, c.quantiles, c.mask, 1.0, 0.9, torch.Generator().manual_seed(0))
    assert torch.equal(
        again, mixture_targets(c.rewards, c.quantiles, c.mask, 1.0, 0.9, torch.Generator().manual_seed(0))
    )
    with pytest.raises(ValueError, match="3 generators for 4 rows"):
        mixture_targets(c.rewards, c.quantiles, c.mask, 1.0, 0.9, generators(3))


def chain_std(mode: str, lam: float, ks: tuple[int, ...], num: int = 50, rows: int = 256) -> list[float]:
    """The F4 chain: uninformative states, terminal reward N(0, 1), gamma = 1.

    State by state from the end, the learned law is the quantile function of the targets' average over trajectories,
    which is the fixed point of quantile regression. Returns the std of the learned law k tokens before the end.
    """
    taus = midpoint_taus(num, dtype=F64)
    levels = (taus * num * rows - 0.5).round().long()
    final = torch.special.ndtri(midpoint_taus(rows, dtype=F64))
    learned = torch.special.ndtri(taus)[None]  # [states M], the last action's law is that of the reward
    seed = torch.Generator().manual_seed(0)
    for k in range(1, max(ks) + 1):
        q = torch.cat([torch.zeros(1, num, dtype=F64), learned]).expand(rows, k + 1, num)
        rewards = torch.zeros(rows, k + 1, dtype=F64)
        rewards[:, -1] = final
        mask = torch.ones(rows, k + 1, dtype=torch.bool)
        if mode == "mixture":
            atoms = mixture_targets(rewards, q, mask, 1.0, lam, seed)[:, 0]
        else:
            atoms = quantile_gae(rewards, q, mask, 1.0, lam)[1][:, 0]
        learned = torch.cat([atoms.flatten().sort().values[levels][None], learned])
    truth = torch.special.ndtri(taus).std(correction=0)  # of M atoms of N(0, 1), a little below 1
    return [float(learned[max(ks) - k].std(correction=0) / truth) for k in ks]


@pytest.mark.parametrize(("lam", "stds"), [(0.95, (0.80, 0.63, 0.51)), (0.90, (0.68, 0.55, 0.52))])
def test_quantile_wise_targets_contract(lam: float, stds: tuple[float, ...]) -> None:
    """Invariant 9: the F4 numbers of the literal lift, 5, 13 and 50 tokens before the end."""
    assert chain_std("quantile_wise", lam, (5, 13, 50)) == pytest.approx(stds, abs=0.015)


def test_mixture_targets_keep_the_law() -> None:
    """Invariant 9: std within 2 %."""
    assert chain_std("mixture", 0.95, (5, 13, 25)) == pytest.approx((1.0, 1.0, 1.0), abs=0.02)


def test_robust_next_values_enter_where_they_should() -> None:
    """lambda_returns with other next values: lam = 0 gives r + gamma * them, lam = 1 ignores them."""
    c = case(9)
    pessimistic = c.values - 1.0
    low = lambda_returns(c.rewards, pessimistic, c.mask, 0.9, 0.0)
    plain = lambda_returns(c.rewards, c.values, c.mask, 0.9, 0.0)
    has_next = torch.stack([torch.tensor([bool(m[t + 1 :].any()) for t in range(17)]) for m in c.mask])
    assert close((plain - low)[c.mask], 0.9 * has_next[c.mask].to(F64))
    assert close(lambda_returns(c.rewards, pessimistic, c.mask, 0.9, 1.0), discounted_returns(c.rewards, c.mask, 0.9))
