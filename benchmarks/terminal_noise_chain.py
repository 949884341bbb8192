"""The terminal-noise chain: what the targets and the losses of DVPO learn where the true law is known.

``python -m benchmarks.terminal_noise_chain`` prints the tables of docs/terminal_noise_chain.md and draws its plot.

The chain: states say nothing, no token matters, gamma = 1, and the reward on the last token is N(0, 1). So the law of
the return is N(0, 1) in every state. The critic is a table with one quantile function per distance to the end.

*Part 1, targets alone.* The table is set to the exact fixed point of quantile regression on the targets of
``learner.maths.returns``: from the end backwards, the quantiles of a distance become those of all target atoms there,
pooled over trajectories whose rewards are the midpoint quantiles of N(0, 1). The rest is the targets' doing.

*Part 2, whole presets.* The table is trained by Adam on the targets and the token losses of the presets
``dvpo`` and ``dvpo-literal`` with fresh random rewards, as in training; and ``dvpo-literal`` with its targets but plain
quantile regression, which separates its targets from its loss.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.critic.terms.base import TokenView
from learner.algorithms.with_critic.dvpo import DVPO
from learner.batch import TrainBatch
from learner.maths.collective import SingleProcess
from learner.maths.quantiles.quantiles import lower_cvar, midpoint_taus, tail_count, upper_cvar
from learner.maths.returns import mixture_targets, quantile_gae
from learner.models.spec import CriticOutput

LAMBDAS = (0.99, 0.95, 0.90)
DISTANCES = (0, 5, 13, 50, 100, 199)
LONGEST = {"quantile_wise": 199, "mixture": 100}
"""Largest distance of part 1; sampled targets go through every token in turn, so their time grows with its square."""
ALPHA = 0.1
NUM_ATOMS, NUM_REWARDS = 100, 101
NUM_QUANTILES, NUM_HEADS, LENGTH, BATCH = 50, 2, 31, 32
TERMS = ("risk", "cvar", "gain", "shift", "shape", "curvature", "consistency")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sound": ("dvpo", {}),
    "literal": ("dvpo-literal", {}),
    "literal targets, plain regression": (
        "dvpo-literal",
        {"huber_kappa": 0.0, **{f"{term}_coef": 0.0 for term in TERMS}},
    ),
}
Targets = Callable[[Tensor, Tensor, Tensor], Tensor]


def summary(law: Tensor) -> list[float]:
    """Mean, std, lower CVaR, upper CVaR, and std inside the lower and the upper tail of a quantile function."""
    count = tail_count(law.shape[-1], ALPHA)
    stds = [part.std(correction=0) for part in (law, law[:count], law[-count:])]
    return [float(x) for x in (law.mean(), stds[0], lower_cvar(law, ALPHA), upper_cvar(law, ALPHA), *stds[1:])]


# --- part 1: the targets alone ---


def fixed_point(targets: Targets, longest: int) -> Tensor:
    """[distance M]: quantile functions that reproduce themselves, from the last token backwards."""
    rewards = torch.special.ndtri(midpoint_taus(NUM_REWARDS, dtype=torch.float64))
    table = torch.zeros(longest + 1, NUM_ATOMS, dtype=torch.float64)
    count = NUM_REWARDS * NUM_ATOMS
    middle = ((midpoint_taus(NUM_ATOMS, dtype=torch.float64) * count).round().long()).clamp(max=count - 1)
    for distance in range(longest + 1):
        length = distance + 1
        column = torch.zeros(NUM_REWARDS, length, dtype=torch.float64)
        column[:, -1] = rewards
        old = table[:length].flip(0).expand(NUM_REWARDS, length, NUM_ATOMS)
        atoms = targets(column, old, torch.ones(NUM_REWARDS, length, dtype=torch.bool))
        table[distance] = atoms[:, 0].reshape(-1).sort().values[middle]
    return table


def target_laws(seeds: int) -> dict[str, dict[float, list[Tensor]]]:
    """Fixed points by target mode and lambda; several for ``mixture``, which draws."""

    def lifted(lam: float) -> Tensor:
        return fixed_point(lambda r, q, m: quantile_gae(r, q, m, 1.0, lam)[1], LONGEST["quantile_wise"])

    def sampled(lam: float, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return fixed_point(lambda r, q, m: mixture_targets(r, q, m, 1.0, lam, generator), LONGEST["mixture"])

    return {
        "quantile_wise": {lam: [lifted(lam)] for lam in LAMBDAS},
        "mixture": {lam: [sampled(lam, seed) for seed in range(seeds)] for lam in LAMBDAS},
    }


# --- part 2: the whole presets ---


def learn(case: str, seed: int, steps: int) -> Tensor:
    """[distance M] after training, averaged over heads; distance 0 is the last token."""
    preset, options = CASES[case]
    critic = {"num_heads": NUM_HEADS, "num_quantiles": NUM_QUANTILES}
    algorithm = build_algorithm(preset, {**options, "critic": critic})
    assert isinstance(algorithm, DVPO)
    generator = torch.Generator().manual_seed(seed)
    start = torch.linspace(-1.0, 1.0, NUM_QUANTILES) + 0.05 * torch.randn(LENGTH, NUM_HEADS, 1, generator=generator)
    raw = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = random_batch(generator)
        values = raw.sort(dim=-1).values  # [seq head M]
        old = values.detach().mean(dim=1).expand(BATCH, LENGTH, NUM_QUANTILES)
        before = algorithm.old_critic(
            batch.rewards, CriticOutput(old.unsqueeze(-2), batch.rewards), batch, SingleProcess()
        )
        targets = algorithm.side.target(before).targets
        tokens = values.expand(BATCH, LENGTH, NUM_HEADS, NUM_QUANTILES).flatten(0, 1)
        loss, _ = algorithm.side.token_losses(TokenView(tokens, targets.flatten(0, 1)))
        optimizer.zero_grad()
        (loss.mean() * LENGTH).backward()
        optimizer.step()
        schedule.step()
    return raw.detach().sort(dim=-1).values.mean(dim=1).flip(0)


def random_batch(generator: torch.Generator) -> TrainBatch:
    """Trajectories without a prompt, whose only reward is N(0, 1) on the last token."""
    mask = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    scores = torch.randn(BATCH, generator=generator)
    rewards = torch.zeros(BATCH, LENGTH)
    rewards[:, -1] = scores
    return TrainBatch(
        token_ids=torch.zeros(BATCH, LENGTH, dtype=torch.int64),
        attention_mask=mask,
        action_mask=mask,
        rollout_logprobs=torch.zeros(BATCH, LENGTH),
        rewards=rewards,
        scores=scores,
        group_ids=torch.arange(BATCH),
        truncated=~mask[:, 0],
        sample_seeds=torch.randint(1 << 60, (BATCH,), generator=generator),
        policy_version_min=torch.zeros(BATCH, dtype=torch.int64),
        prompt_keys=torch.arange(BATCH),
        answer_keys=torch.zeros(BATCH, dtype=torch.int64),
        gold_labels=torch.full((BATCH,), torch.nan),
        loss_weights=torch.ones(BATCH),
    )


# --- output ---


def print_targets(laws: dict[str, dict[float, list[Tensor]]]) -> None:
    """Std and CVaR by distance; mean over seeds and largest deviation from it."""
    truth = summary(torch.special.ndtri(midpoint_taus(NUM_ATOMS, dtype=torch.float64)))
    print(f"std (lower CVaR at {ALPHA}) by distance to the end; truth {truth[1]:.2f} ({truth[2]:.2f})\n")
    print("| targets | lambda | " + " | ".join(f"k = {k}" for k in DISTANCES) + " | largest mean, absolute |")
    print("|---" * (len(DISTANCES) + 3) + "|")
    for mode, by_lambda in laws.items():
        for lam, tables in by_lambda.items():
            cells = []
            for k in DISTANCES:
                if k > LONGEST[mode]:
                    cells.append("-")
                    continue
                rows = [summary(table[k]) for table in tables]
                std, cvar = (statistics.mean(row[i] for row in rows) for i in (1, 2))
                spread = max(abs(row[1] - std) for row in rows)
                cells.append(f"{std:.3f}{f' ±{spread:.3f}' if len(rows) > 1 else ''} ({cvar:.2f})")
            bias = max(float(table.mean(dim=-1).abs().max()) for table in tables)
            print(f"| {mode} | {lam} | " + " | ".join(cells) + f" | {bias:.3f} |")


def print_learned(learned: dict[str, list[Tensor]], distances: list[int]) -> None:
    """Mean, std and tail means of the learned laws; mean over seeds, and the largest deviation of the std from it."""
    truth = summary(torch.special.ndtri(midpoint_taus(NUM_QUANTILES)))
    print("\n| what is learned | distance | mean | std | lower CVaR | upper CVaR | lower tail std | upper tail std |")
    print("|---" * 8 + "|")
    print("| true law | any | " + " | ".join(f"{x:.2f}" for x in truth) + " |")
    for case, tables in learned.items():
        for k in distances:
            rows = [summary(table[k]) for table in tables]
            mean, std, *tails = (statistics.mean(column) for column in zip(*rows, strict=True))
            spread = max(abs(row[1] - std) for row in rows)
            cells = [case, str(k), f"{mean:.2f}", f"{std:.2f} ±{spread:.2f}", *(f"{x:.2f}" for x in tails)]
            print("| " + " | ".join(cells) + " |")


def draw(laws: dict[str, dict[float, list[Tensor]]], learned: dict[str, list[Tensor]], path: Path) -> None:
    """Left: std by distance of the targets alone. Right: learned quantile functions against the true law."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    for (mode, by_lambda), style in zip(laws.items(), ("-", "--"), strict=True):
        for (lam, tables), color in zip(by_lambda.items(), ("C0", "C1", "C2"), strict=True):
            std = torch.stack([table.std(dim=-1, correction=0) for table in tables]).mean(dim=0)
            left.plot(std, style, color=color, label=f"{mode}, λ = {lam}")
    left.set(title="targets alone", xlabel="tokens to the end", ylabel="std (truth: 1)")
    left.set_ylim(0.0, 1.1)
    left.legend(fontsize=8)
    taus = midpoint_taus(NUM_QUANTILES)
    for axes, k in ((middle, 0), (right, LENGTH - 1)):
        axes.plot(taus, torch.special.ndtri(taus), "k", lw=2, label="true law N(0, 1)")
        for color, (case, tables) in zip(("C0", "C3", "C1"), learned.items(), strict=True):
            stacked = torch.stack([table[k] for table in tables])
            axes.plot(taus, stacked.mean(dim=0), color=color, label=case)
            axes.fill_between(taus, stacked.amin(dim=0), stacked.amax(dim=0), color=color, alpha=0.25, lw=0)
        axes.set(title=f"whole presets, {k} tokens to the end", xlabel="level τ", ylabel="learned quantile")
        axes.set_ylim(-2.7, 2.7)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description="laws learned on the terminal-noise chain")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=700, help="optimiser steps of part 2")
    parser.add_argument("--plot", type=Path, help="where to draw, such as docs/terminal_noise_chain.png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    laws = target_laws(args.seeds)
    print_targets(laws)
    learned = {case: [learn(case, seed, args.steps) for seed in range(args.seeds)] for case in CASES}
    print_learned(learned, [0, 5, LENGTH - 1])
    if args.plot:
        draw(laws, learned, args.plot)


if __name__ == "__main__":
    main()
