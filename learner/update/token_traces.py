"""What an update knew of single tokens, of a few trajectories: for people to look at, never read by training.

There is no clean score in here: the learner has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from learner.maths.quantiles.quantiles import midpoint_taus
from learner.update.limits import TraceLimits
from learner.update.rank_update import RankUpdate
from learner.update.result import TokenTrace
from rollout.trajectory import ScoredTrajectory

LEVELS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)
"""Levels that a value distribution is thinned to: the nearest ones that the critic has."""
NUMBER_BYTES = 8
"""Of one number in JSON, at DIGITS digits and with what separates it."""
OTHER_NUMBERS = 6
"""A token's text, whether it was sampled, its advantage and three log-probabilities."""
DIGITS = 4


def traced_samples(
    samples: Sequence[ScoredTrajectory], limits: TraceLimits, values_per_token: int
) -> dict[str, tuple[int, int]]:
    """Which of the first trajectories are recorded, and from which token to which.

    Whole ones as long as there is room, counted from their first sampled token; if not even the first has room, its
    beginning.

    Args:
        values_per_token: numbers that a critic's values are recorded with.

    Returns:
        By trajectory, the first token and the one after the last.
    """
    room = limits.max_bytes // (NUMBER_BYTES * (values_per_token + OTHER_NUMBERS))
    chosen: dict[str, tuple[int, int]] = {}
    for sample in samples[: limits.num_trajectories]:
        trajectory = sample.trajectory
        first, end = trajectory.num_prompt_tokens, len(trajectory.token_ids)
        if end - first <= room or (not chosen and room > 0):
            end = min(end, first + room)
            chosen[trajectory.trajectory_id] = (first, end)
            room -= end - first
    return chosen


def thinned_levels(num_quantiles: int) -> list[int]:
    """Positions of the quantiles that are recorded, ascending and each once."""
    taus = midpoint_taus(num_quantiles).tolist()
    return sorted({min(range(num_quantiles), key=lambda i: abs(taus[i] - level)) for level in LEVELS})


@torch.no_grad()
def collect_traces(
    run: RankUpdate,
    samples: Sequence[ScoredTrajectory],
    logprobs: Callable[[Sequence[Sequence[int]], float], list[list[float]]],
) -> dict[str, TokenTrace]:
    """Record the first trajectories of a batch, once all steps of the update are done. Every rank calls it.

    One forward pass of the policy over the recorded tokens says what the update made of them. No random stream is
    moved, no gradient or weight is touched.

    Args:
        run: the update, with what was estimated in it.
        samples: the batch as it came, without what an algorithm replays.
        logprobs: of tokens with the weights after the update, see :meth:`learner.update.learner.Learner.logprobs`.

    Returns:
        By trajectory; the same on every rank.
    """
    limits, critic = run.settings.traces, run.algorithm.critic_config
    num_quantiles = 0 if critic is None else critic.num_quantiles
    kept = thinned_levels(num_quantiles) if num_quantiles else []
    chosen = traced_samples(samples, limits, 0 if critic is None else critic.num_heads * len(kept))
    tokens = {s.trajectory.trajectory_id: s.trajectory.token_ids for s in samples[: limits.num_trajectories]}
    cut = [tokens[name][:end] for name, (_, end) in chosen.items()]
    # On every rank, whoever has the row: some of the weights may lie with each.
    after = dict(zip(chosen, logprobs(cut, run.settings.temperature), strict=True)) if chosen else {}
    mine: dict[str, TokenTrace] = {}
    fresh = {id(sample) for sample in samples}
    corrected = run.algorithm.corrected_scores if run.algorithm.corrections else None
    for row, number in enumerate(run.plan.rank_rows(run.world.rank)):
        name = run.samples[number].trajectory.trajectory_id
        # A trajectory that is replayed too is recorded where it is new.
        if name not in chosen or id(run.samples[number]) not in fresh:
            continue
        place = slice(*chosen[name])
        sampled = run.batch.action_mask[row, place]
        mine[name] = TokenTrace(
            first=place.start,
            num_left_out=len(tokens[name]) - place.stop,
            sampled=tuple(sampled.tolist()),
            advantages=_numbers(run.estimates.advantages[row, place], sampled),
            old=_numbers(run.old.logprobs[row, place], sampled),
            new=_numbers(torch.tensor(after[name][place]), sampled.cpu()),
            levels=_levels(num_quantiles, kept),
            values=_values(run.shown_heads.get(row), kept, sampled),
            corrected=None if corrected is None else round(float(corrected[row]), DIGITS),
        )
    found: dict[str, TokenTrace] = {}
    for part in run.world.gather_objects(mine):
        found |= part
    return {name: found[name] for name in chosen if name in found}


def _numbers(values: Tensor, sampled: Tensor) -> tuple[float | None, ...]:
    """Numbers of sampled tokens; None elsewhere, and where nothing was computed."""
    known = (sampled & values.isfinite()).tolist()
    return tuple(round(v, DIGITS) if k else None for v, k in zip(values.tolist(), known, strict=True))


def _levels(num_quantiles: int, kept: Sequence[int]) -> tuple[float, ...]:
    if not num_quantiles:
        return ()
    taus = midpoint_taus(num_quantiles, dtype=torch.float64)
    return tuple(round(float(taus[i]), DIGITS) for i in kept)


def _values(
    heads: Tensor | None, kept: Sequence[int], sampled: Tensor
) -> tuple[tuple[tuple[float, ...], ...] | None, ...]:
    """[token head level] of recorded tokens, sorted: a critic without monotone heads may have them out of order.

    Args:
        heads: [token head quantile] of all sampled tokens of the row, in order; None without a critic.
        sampled: [token] bool of the recorded ones, which are the row's first.
    """
    if heads is None:
        return ()
    thin = iter(heads.float().sort(dim=-1).values[..., list(kept)].tolist())
    return tuple(
        tuple(tuple(round(v, DIGITS) for v in head) for head in next(thin)) if is_sampled else None
        for is_sampled in sampled.tolist()
    )
