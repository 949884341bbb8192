"""Discounted returns, lambda-returns, GAE and distributional targets, with the masking rules of one place.

Rules (our derivation), the same for every function here:

* only action tokens (``action_mask`` true) are steps: gamma and lam act once per action token;
* a reward on a token that is not an action belongs to the action *before* it; before the first action it is nobody's;
* the value after the last action is 0, or ``bootstrap_value`` (a response that was cut, if the caller wants that);
* values at positions that are not actions are never read, so they may hold anything, NaN included.

Everything is computed by one backward linear recurrence ``x_t = d_t + c_t * x_{t+1}``, solved in ceil(log2 T)
vectorised steps by stride doubling (:func:`_scan`) instead of a loop over time. Nothing here carries gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.maths.replacement import ReplacementDraws

Lam = float | Tensor
"""lambda in [0, 1]: one number, or [batch] one per row (length-adaptive lambda)."""


def gae(
    rewards: Tensor,
    values: Tensor,
    action_mask: Tensor,
    gamma: float,
    lam: Lam,
    bootstrap_value: Tensor | None = None,
    *,
    segment_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over action tokens (1506.02438 Eq 16; masking is our derivation).

    ``R_t = r_t + gamma * ((1 - lam) * V_{t+1} + lam * R_{t+1})`` and ``A_t = R_t - V_t``, which is the usual
    ``delta_t + gamma * lam * A_{t+1}`` with V_t cancelled.

    Args:
        rewards: [batch seq].
        values: [batch seq], V_t is the value just before token t.
        action_mask: [batch seq] bool.
        gamma: discount per action token, in [0, 1].
        lam: see :data:`Lam`.
        bootstrap_value: value after the last action: [batch] per row, or [batch seq] read at the last action of each
            segment; None is 0.
        segment_ids: [batch seq] int, for packed rows: nothing crosses from one segment to the next.

    Returns:
        advantages and returns, both [batch seq], 0 where ``action_mask`` is false; detached.
    """
    returns = lambda_returns(rewards, values, action_mask, gamma, lam, bootstrap_value, segment_ids=segment_ids)
    return _zero_outside(returns - values.detach(), action_mask), returns


def quantile_gae(
    rewards: Tensor,
    quantile_values: Tensor,
    action_mask: Tensor,
    gamma: float,
    lam: Lam,
    bootstrap_value: Tensor | None = None,
    *,
    segment_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`gae` for each quantile by itself, Eq 2 of 2512.03847 in our (literal) reading.

    Args:
        quantile_values: [batch seq M], ascending.
        bootstrap_value: [batch M] or [batch seq M], ascending; None is 0.

    Returns:
        advantages A^i and target atoms Y^i = Q^i + A^i, both [batch seq M]. Sorted input gives sorted targets, exactly:
        every floating-point operation on the way is monotone. For 0 < lam < 1 the targets are under-dispersed (F4).
    """
    return gae(rewards, quantile_values, action_mask, gamma, lam, bootstrap_value, segment_ids=segment_ids)


def lambda_returns(
    rewards: Tensor,
    next_values: Tensor,
    action_mask: Tensor,
    gamma: float,
    lam: Lam,
    bootstrap_value: Tensor | None = None,
    *,
    segment_ids: Tensor | None = None,
) -> Tensor:
    """``R_t = r_t + gamma * ((1 - lam) * V_{t+1} + lam * R_{t+1})``, 0 where ``action_mask`` is false; detached.

    Args:
        next_values: [batch seq] or [batch seq M]; what to bootstrap from (the critic's values in GAE, the worst case
            over an uncertainty set in robust variants). V_{t+1} is its entry at the *next action token*.
        others: as in :func:`gae`.
    """
    steps = _Steps.of(action_mask, segment_ids)
    v = next_values.detach()
    axes = v.shape[2:]
    last = _bootstrap(v, bootstrap_value)
    following = v.gather(1, _expand(steps.next_index, axes))
    following = torch.where(_expand(steps.has_next, axes), following, last)
    lam_t = _per_row(lam, action_mask, v)
    reward = steps.assign_rewards(rewards.detach()).to(v.dtype)
    carry = torch.where(steps.has_next, gamma * lam_t, 0.0 * lam_t)
    here = torch.where(steps.has_next, gamma * (1.0 - lam_t), torch.full_like(lam_t, gamma))
    drive = _zero_outside(_expand(reward, axes) + _expand(here, axes) * following, action_mask)
    # a position that is no action hands on what comes after it
    carry = torch.where(action_mask, carry, torch.ones_like(carry))
    return _zero_outside(_scan(drive, carry), action_mask)


def discounted_returns(
    rewards: Tensor,
    action_mask: Tensor,
    gamma: float,
    bootstrap_value: Tensor | None = None,
    *,
    segment_ids: Tensor | None = None,
) -> Tensor:
    """``G_t = sum_{s >= t} gamma^(s - t) r_s`` over action tokens, [batch seq]: the lambda-return at lam = 1."""
    nothing = torch.zeros_like(rewards)
    return lambda_returns(rewards, nothing, action_mask, gamma, 1.0, bootstrap_value, segment_ids=segment_ids)


def mixture_targets(
    rewards: Tensor,
    quantile_values: Tensor,
    action_mask: Tensor,
    gamma: float,
    lam: float,
    generator: torch.Generator | Sequence[torch.Generator],
    bootstrap_value: Tensor | None = None,
    *,
    segment_ids: Tensor | None = None,
) -> Tensor:
    """Atoms of the lambda-return *distribution* by sample replacement (2105.11366; our choice for Eq 2).

    ``X_last^j = r_last + gamma * bootstrap^j`` and ``X_t^j = r_t + gamma * (Q_{t+1}^{pi_t(j)} if j in S_t else
    X_{t+1}^j)`` over action tokens, S_t a random set of ``(1 - lam) * M`` slots (rounded stochastically), pi_t a random
    permutation. Where :func:`quantile_gae` averages quantile functions, this mixes laws, which is what the lambda
    operator does: the mean of the atoms is the scalar lambda-return in expectation, and the spread is kept (F5).

    Args:
        quantile_values: [batch seq M], detached here.
        generator: one generator for the batch, or one per row; with one per row, a row's atoms depend on that row and
            its generator only, whatever rows or padding surround it. Uniforms are drawn on the generator's device.
        others: as in :func:`quantile_gae`.

    Returns:
        [batch seq M], ascending; 0 where ``action_mask`` is false; detached.
    """
    if not 0.0 <= lam <= 1.0:
        raise ValueError(f"lam must be in [0, 1], got {lam}")
    q = quantile_values.detach()
    batch, seq, num = q.shape
    steps = _Steps.of(action_mask, segment_ids)
    reward = steps.assign_rewards(rewards.detach()).to(q.dtype)
    last = _bootstrap(q, bootstrap_value)
    # right-align the actions: column k of a row is its k-th action from the end
    counts = action_mask.sum(dim=1)
    longest = int(counts.max()) if batch else 0
    order = torch.where(action_mask, torch.arange(seq, device=q.device), -1).sort(dim=1, descending=True).indices
    atoms = torch.zeros_like(q)
    current = q.new_zeros(batch, num)
    rows = torch.arange(batch, device=q.device)
    draw = ReplacementDraws(generator, batch, num, (1.0 - lam) * num, q.device)
    for k in range(longest):
        at = order[:, k]
        replaced = current
        if k > 0:
            slots, sources, used = draw.step(k)
            fresh = torch.where(used, q[rows, order[:, k - 1]].gather(1, sources), current.gather(1, slots))
            replaced = current.scatter(1, slots, fresh)
        after = torch.where(steps.has_next[rows, at][:, None], replaced, last.expand_as(q)[rows, at])
        current = reward[rows, at][:, None] + gamma * after
        live = (k < counts)[:, None]
        atoms[rows, at] = torch.where(live, current, atoms[rows, at])
    return _zero_outside(atoms.sort(dim=-1).values, action_mask)


# --- the recurrence and the steps ----------------------------------------------------------------------------------


def _scan(drive: Tensor, carry: Tensor) -> Tensor:
    """Solve ``x_t = drive_t + carry_t * x_{t+1}`` (x after the end is 0) by doubling the stride.

    Args:
        drive: [batch seq ...].
        carry: [batch seq], in [0, 1], so no product can overflow.
    """
    seq = drive.shape[1]
    x, c = drive, carry
    stride = 1
    while stride < seq:
        ahead = x[:, stride:] * _expand(c[:, : seq - stride], x.shape[2:])
        x = torch.cat([x[:, : seq - stride] + ahead, x[:, seq - stride :]], dim=1)
        c = torch.cat([c[:, : seq - stride] * c[:, stride:], torch.zeros_like(c[:, seq - stride :])], dim=1)
        stride *= 2
    return x


@dataclass(frozen=True, slots=True)
class _Steps:
    """Which action follows which. All [batch seq].

    Attributes:
        next_index: position of the next action strictly after t (in the same segment); 0 where there is none.
        has_next: whether there is one.
        previous_index: position of the action at or before t (in the same segment); 0 where there is none.
        has_previous: whether there is one.
    """

    next_index: Tensor
    has_next: Tensor
    previous_index: Tensor
    has_previous: Tensor

    @classmethod
    def of(cls, action_mask: Tensor, segment_ids: Tensor | None) -> _Steps:
        """Find the neighbours of every position."""
        batch, seq = action_mask.shape
        position = torch.arange(seq, device=action_mask.device).expand(batch, seq)
        at_or_after = torch.where(action_mask, position, seq).flip(1).cummin(dim=1).values.flip(1)
        after = torch.cat([at_or_after[:, 1:], at_or_after.new_full((batch, min(seq, 1)), seq)], dim=1)
        before = torch.where(action_mask, position, -1).cummax(dim=1).values
        has_next, has_previous = after < seq, before >= 0
        after, before = after.clamp(max=max(seq - 1, 0)), before.clamp(min=0)
        if segment_ids is not None:
            has_next &= segment_ids.gather(1, after) == segment_ids
            has_previous &= segment_ids.gather(1, before) == segment_ids
        return cls(torch.where(has_next, after, 0), has_next, torch.where(has_previous, before, 0), has_previous)

    def assign_rewards(self, rewards: Tensor) -> Tensor:
        """Move every reward to the action it belongs to, [batch seq]; a non-finite reward of no action is ignored."""
        is_action = self.previous_index == torch.arange(rewards.shape[1], device=rewards.device)
        usable = self.has_previous & (is_action | rewards.isfinite())
        moved = torch.where(usable, rewards, torch.zeros_like(rewards))
        return torch.zeros_like(rewards).scatter_add(1, self.previous_index, moved)


def _expand(x: Tensor, axes: torch.Size) -> Tensor:
    """[batch seq] -> [batch seq *axes] without a copy."""
    return x.reshape(x.shape + (1,) * len(axes)).expand(x.shape + axes)


def _zero_outside(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(_expand(mask, x.shape[2:]), x, torch.zeros((), dtype=x.dtype, device=x.device))


def _bootstrap(values: Tensor, bootstrap: Tensor | None) -> Tensor:
    """The value after the last action, broadcastable to ``values`` [batch seq *axes]."""
    if bootstrap is None:
        return values.new_zeros((1,) * values.dim())
    bootstrap = bootstrap.detach().to(values)
    if bootstrap.shape == values.shape:
        return bootstrap
    if bootstrap.shape != values.shape[:1] + values.shape[2:]:
        raise ValueError(f"bootstrap_value {tuple(bootstrap.shape)} does not fit values {tuple(values.shape)}")
    return bootstrap.unsqueeze(1)


def _per_row(lam: Lam, action_mask: Tensor, like: Tensor) -> Tensor:
    """lambda as [batch seq]."""
    column = (
        lam.detach().to(like)
        if isinstance(lam, Tensor)
        else torch.tensor(float(lam), dtype=like.dtype, device=like.device)
    )
    if bool(((column < 0.0) | (column > 1.0)).any()):
        raise ValueError(f"lam must be in [0, 1], got {lam}")
    return (column[:, None] if column.dim() == 1 else column).expand(action_mask.shape)
