"""Does the quantile critic learn what it is shown? Explained variance on one batch, and the mean of a 0/1 reward.

*Fit*: a small random transformer as the critic's body, 64 trajectories with rewards of 0 and 1, 60 critic updates on
that one batch; explained variance after them, as the metric ``critic/explained_variance`` has it.

*Mean*: one state whose reward is 1 with probability p. The quantiles of three heads are trained by Adam on fresh
batches of 64 rewards; the mean of the distribution, averaged over the last fifth of the steps. It should be p.

    python -m benchmarks.critic_fit
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2Model

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.critic.terms.base import TokenView
from learner.algorithms.records import CorrectedRewards, Denominators, OldOutputs
from learner.batch import TrainBatch, collate
from learner.maths.collective import SingleProcess
from learner.maths.quantiles.quantiles import midpoint_taus
from learner.metrics import to_floats
from learner.models.critic import CriticModel
from learner.models.spec import CriticOutput
from tests.learner.plain_learner import random_samples

NUM_HEADS = 3
PROBABILITIES = (0.02, 0.1, 0.2, 0.5, 0.8, 0.9)
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "with Eq 9 on blocks": {"curvature_coef": 0.01},
    "with Eq 9 on neighbours": {"curvature_coef": 0.01, "curvature_form": "asymmetric", "curvature_min_iqr": 0.05},
}


def build(options: dict[str, Any], num_quantiles: int) -> ActorCritic:
    """DVPO with these options."""
    critic = {"num_heads": NUM_HEADS, "num_quantiles": num_quantiles}
    algorithm = build_algorithm("dvpo", {**options, "critic": critic})
    assert isinstance(algorithm, ActorCritic)
    return algorithm


def explained_variance(options: dict[str, Any], num_quantiles: int, updates: int = 60, seed: int = 0) -> float:
    """Of the critic's values on the one batch that it was trained on ``updates`` times."""
    algorithm = build(options, num_quantiles)
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        use_cache=False,
    )
    torch.manual_seed(seed)
    assert algorithm.critic_config is not None
    model = CriticModel(Qwen2Model(config).float(), algorithm.critic_config, seed=seed)
    batch = collate(random_samples(64, seed))
    scores = (torch.rand(len(batch), generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    batch = with_scores(batch, scores)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    counts = Denominators(float(batch.action_mask.sum()), float(len(batch)))
    found = 0.0
    for _ in range(updates + 1):
        outputs = model(token_ids=batch.token_ids, action_mask=batch.action_mask)
        with torch.no_grad():
            old = CriticOutput.of({name: value.detach() for name, value in outputs.items()})
            estimates = algorithm.estimate(batch, old_outputs(old, batch), SingleProcess())
        found = to_floats(estimates.metrics)["critic/explained_variance"]
        loss = algorithm.critic_loss(CriticOutput.of(outputs), batch, estimates, counts).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return found


def with_scores(batch: TrainBatch, scores: torch.Tensor) -> TrainBatch:
    """The batch with these scores on its last sampled tokens."""
    return CorrectedRewards(batch).with_scores(scores, {}).batch


def old_outputs(critic: CriticOutput, batch: TrainBatch) -> OldOutputs:
    """What an estimation needs beside the critic's output: nothing that matters here."""
    return OldOutputs(torch.zeros_like(batch.rewards), critic=critic)


def learned_mean(options: dict[str, Any], num_quantiles: int, p: float, steps: int = 1500, seed: int = 0) -> float:
    """Mean of the distribution of a reward that is 1 with probability p, after training."""
    algorithm = build(options, num_quantiles)
    generator = torch.Generator().manual_seed(seed)
    raw = (0.2 * (midpoint_taus(num_quantiles) - 0.5)).repeat(NUM_HEADS, 1).requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=0.01)
    last: list[float] = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 * (1.0 - step / steps) + 1e-4
        rewards = (torch.rand(64, generator=generator) < p).float()
        algorithm.scale.update(rewards)
        tokens = raw.sort(dim=-1).values.expand(len(rewards), NUM_HEADS, num_quantiles)
        losses, _ = algorithm.side.token_losses(TokenView(tokens, rewards[:, None]))
        optimizer.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_([raw], 1.0)
        optimizer.step()
        if step >= 0.8 * steps:
            last.append(float(raw.detach().mean()))
    return sum(last) / len(last)


def main() -> None:
    """Both tables in Markdown."""
    parser = argparse.ArgumentParser(description="whether the quantile critic learns what it is shown")
    parser.add_argument("--quantiles", type=int, nargs="+", default=[32, 64, 200, 500])
    sizes = parser.parse_args().quantiles
    torch.set_num_threads(1)
    print("| case | M | explained variance | " + " | ".join(f"p = {p}" for p in PROBABILITIES) + " |")
    print("|---|---|---|" + "---|" * len(PROBABILITIES))
    for name, options in CASES.items():
        for size in sizes:
            means = [f"{learned_mean(options, size, p):.3f}" for p in PROBABILITIES]
            print(f"| {name} | {size} | {explained_variance(options, size):.3f} | {' | '.join(means)} |", flush=True)


if __name__ == "__main__":
    main()
