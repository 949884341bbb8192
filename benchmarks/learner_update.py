"""An update of policy and critic against a bare DeepSpeed loop on as many real tokens.

``python -m benchmarks.learner_update`` prints the table of docs/benchmarks.md, ``--fixed-cost`` what a micro-batch
costs beside its tokens, which ``learner/plan.py`` reckons with.

How it is measured. One thread, one rank, in one process, turn by turn: one update of the product
(``Learner.update`` with collation, the passes before the update, estimation, losses, metrics and both optimisers'
steps), then one step of the bare loop. That does forward, backward and step of two equal models with the same losses
and nothing else, on tensors that are there already: the batch's own tokens one after another, in rows that all have the
mean length, so without padding. The ratio is bare over product, the median over pairs, of CPU time (other work on the
machine disturbs that least) and of wall time.

``demo`` is the demo's model and task, ``long tail`` are Qwen2 bodies and lognormal lengths between 16 and 512 tokens,
half of each row sampled. The algorithm is ``dvpo`` with the demo's critic, one optimiser step a batch.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM, Qwen2Model

from benchmarks.critic_update import CPU, DEMO_OPTIONS, Setting, demo, qwen2, scored
from learner.algorithms.base import Algorithm, Estimates
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.records import Denominators
from learner.batch import TrainBatch, collate
from learner.config import LearnerConfig
from learner.engine.deepspeed_engine import DeepSpeedEngine, start_process_group
from learner.maths.losses.policy import clipped_policy_loss
from learner.metrics import to_floats
from learner.models.critic import CriticModel
from learner.models.policy import PolicyModel
from learner.models.spec import CriticOutput
from learner.update.collective import TorchCollective
from learner.update.learner import Learner
from learner.update.rank import UpdateSettings

BUDGET = 16384
"""Padded tokens of a micro-batch: the default."""


def long_tail(name: str, hidden_size: int, num_layers: int, rows: int, median: float, sigma: float) -> Setting:
    """Lognormal lengths, as those of answers that a few times go on and on."""
    config = qwen2(hidden_size, num_layers, vocab_size=4096, max_position_embeddings=512, tie_word_embeddings=True)
    rng = random.Random(0)
    samples = []
    for index in range(rows):
        length = min(512, max(16, round(rng.lognormvariate(math.log(median), sigma))))
        tokens = [rng.randrange(4096) for _ in range(length)]
        samples.append(scored(tokens[: length // 2], tokens[length // 2 :], index, float(rng.random() < 0.5)))
    return Setting(name, config, samples)


def mixes() -> dict[str, Setting]:
    """The rows of the table."""
    return {
        "demo": demo(),
        "tail": long_tail("long tail", 256, 6, 32, 64.0, 1.0),
        "wide": long_tail("less long tail", 256, 6, 24, 100.0, 0.7),
    }


def engines(
    mix: Setting, algorithm: Algorithm, config: LearnerConfig, pack_rows: bool = False
) -> tuple[DeepSpeedEngine, DeepSpeedEngine]:
    """Policy and critic, from the same start each time."""
    torch.manual_seed(0)
    assert algorithm.critic_config is not None
    policy = PolicyModel(Qwen2ForCausalLM(mix.config).float(), pack_rows)
    critic = CriticModel(Qwen2Model(mix.config).float(), algorithm.critic_config, seed=0, pack_rows=pack_rows)
    return DeepSpeedEngine(policy, config), DeepSpeedEngine(critic, config)


class Bare:
    """Forward, backward and step of two models, and nothing else."""

    def __init__(self, mix: Setting, config: LearnerConfig) -> None:
        self.algorithm, self.config = build_algorithm("dvpo", DEMO_OPTIONS), config
        self.policy, self.critic = engines(mix, self.algorithm, config)
        self.micros = [(micro, self._estimates(micro)) for micro in equal_rows(mix, config.micro_batch_tokens)]
        self.counts = Denominators(float(sum(int(m.action_mask.sum()) for m, _ in self.micros)), 1.0)

    def _estimates(self, micro: TrainBatch) -> Estimates:
        """Targets of the right shape; what they are does not change what the loss costs."""
        critic = self.algorithm.critic_config
        assert critic is not None
        atoms = torch.randn((*micro.rewards.shape, critic.num_quantiles), generator=torch.Generator().manual_seed(0))
        return Estimates(torch.randn(micro.rewards.shape), atoms.sort(dim=-1).values)

    def step(self) -> None:
        """One optimiser step of both models."""
        for micro, estimates in self.micros:
            self.policy.backward(self._policy_loss(micro, estimates), last=micro is self.micros[-1][0])
        for micro, estimates in self.micros:
            outputs = self.critic.forward(token_ids=micro.token_ids, action_mask=micro.action_mask, packed=True)
            found = self.algorithm.critic_loss(CriticOutput.of(outputs), micro, estimates, self.counts)
            self.critic.backward(found.loss, last=micro is self.micros[-1][0])
        for engine in (self.policy, self.critic):
            engine.step(1e-5)

    def _policy_loss(self, micro: TrainBatch, estimates: Estimates) -> Tensor:
        """PPO's clipped loss of the sampled tokens, from logits as plain as can be."""
        hidden = self.policy.forward(token_ids=micro.token_ids, action_mask=micro.action_mask, temperature=1.0)
        logprobs, mask = hidden["logprobs"], micro.action_mask
        loss = clipped_policy_loss(logprobs, logprobs.detach(), estimates.advantages, mask, 0.2, 0.2, None).loss
        return loss[mask].sum() / self.counts.num_action_tokens


def equal_rows(mix: Setting, budget: int) -> Iterator[TrainBatch]:
    """The batch's tokens one after another, cut into rows of the mean length and these into micro-batches."""
    tokens = [token for s in mix.samples for token in s.trajectory.token_ids]
    sampled = sum(s.trajectory.num_response_tokens for s in mix.samples) / len(tokens)
    length = round(len(tokens) / len(mix.samples))
    prompt = length - max(1, round(sampled * length))
    rows = [tokens[start : start + length] for start in range(0, len(tokens) - length + 1, length)]
    for first in range(0, len(rows), max(1, budget // length)):
        part = rows[first : first + max(1, budget // length)]
        yield collate([scored(row[:prompt], row[prompt:], i, 0.0) for i, row in enumerate(part)])


def product(mix: Setting, config: LearnerConfig, pack_rows: bool) -> Learner:
    """The learner as in a run of one rank."""
    algorithm = build_algorithm("dvpo", DEMO_OPTIONS)
    settings = UpdateSettings(config, num_updates=10**6)
    return Learner(algorithm, *engines(mix, algorithm, config, pack_rows), None, TorchCollective(CPU), settings)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def compare(mix: Setting, repeats: int, budget: int, pack_rows: bool) -> str:
    """A row of the table."""
    config = LearnerConfig(critic_lr=1e-5, policy_lr=1e-5, lr_warmup_frac=0.0, micro_batch_tokens=budget)
    learner, bare = product(mix, config, pack_rows), Bare(mix, config)
    metrics: dict[str, float] = {}
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for index in range(repeats + 1):  # the first warms up

        def update(index: int = index) -> None:
            metrics.update(to_floats(learner.update(mix.samples, index).metrics))

        first = timed(update)
        pairs.append((first, timed(bare.step)))
    measured = pairs[1:]
    ratios = [[other[clock] / ours[clock] for ours, other in measured] for clock in (1, 0)]
    ours, other = (1e3 * statistics.median(pair[k][1] for pair in measured) for k in (0, 1))
    close(learner, bare)
    cells = [
        f"{mix.name} ({mix.config.hidden_size} x {mix.config.num_hidden_layers})",
        f"{len(mix.samples)} x {mix.num_tokens / len(mix.samples):.0f}",
        f"{metrics['learner/micro_batches']:.0f}",
        f"{metrics['learner/padding_frac']:.2f}",
        f"{other:.0f}",
        f"{ours:.0f}",
        *(f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})" for r in ratios),
    ]
    return f"| {' | '.join(cells)} |"


def close(learner: Learner, bare: Bare | None = None) -> None:
    """Give the engines' memory back."""
    for engine in (learner.policy, learner.critic, *((bare.policy, bare.critic) if bare else ())):
        assert engine is not None
        engine.close()


def fixed_cost(mix: Setting, repeats: int, pack_rows: bool) -> str:
    """What a micro-batch costs beside its tokens: equal rows, in one micro-batch and in many, turn by turn."""
    length = round(mix.num_tokens / len(mix.samples))
    rng, words = random.Random(0), mix.config.vocab_size
    rows = [[rng.randrange(words) for _ in range(length)] for _ in range(len(mix.samples))]
    equal = replace(mix, samples=[scored(r[: length // 2], r[length // 2 :], i, 1.0) for i, r in enumerate(rows)])
    budgets = (len(rows) * length, 4 * length)
    configs = [LearnerConfig(lr_warmup_frac=0.0, micro_batch_tokens=budget) for budget in budgets]
    learners = [product(equal, config, pack_rows) for config in configs]
    found = []
    for index in range(repeats + 1):
        one, many = (timed(partial(learner.update, equal.samples, index))[1] for learner in learners)
        found.append((many - one) / (math.ceil(len(rows) / 4) - 1) / (one / (len(rows) * length)))
    for learner in learners:
        close(learner)
    spread = sorted(found[1:])
    return f"{mix.name}: {statistics.median(spread):.0f} tokens ({spread[0]:.0f} to {spread[-1]:.0f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="update of policy and critic against a bare DeepSpeed loop")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mix", nargs="*", default=["demo", "tail", "wide"])
    parser.add_argument("--micro-batch-tokens", type=int, default=BUDGET)
    parser.add_argument("--padded", action="store_true", help="as with model.pack_rows: false")
    parser.add_argument("--fixed-cost", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_process_group(0, 1, "127.0.0.1", port, CPU, 600)
    chosen = {name: mix for name, mix in mixes().items() if name in args.mix}
    if args.fixed_cost:
        for mix in chosen.values():
            print(fixed_cost(mix, args.repeats, not args.padded), flush=True)
    else:
        print("| model (width x layers) | rows x mean tokens | micro-batches | padding | bare, CPU ms | product, CPU ms"
              " | bare / product, CPU time | wall time |")  # fmt: skip
        print("|---" * 8 + "|")
        for mix in chosen.values():
            print(compare(mix, args.repeats, args.micro_batch_tokens, not args.padded), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
