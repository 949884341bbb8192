"""Cost of a critic update (forward, loss, backward, optimiser step): quantile ensemble against scalar critic.

``python -m benchmarks.critic_update`` prints the table of docs/benchmarks.md.

How it is measured. One thread, one rank. Preset ``dvpo`` (3 heads of 200 quantiles) and preset ``ppo`` get the same
batch and equal bodies, in the same run and turn by turn, through the learner's own code: ``RankUpdate.optimise`` on a
DeepSpeed engine (ZeRO stage 2, AdamW). Estimation (targets, advantages) comes before and is not counted. The ratio is
the median over pairs, of wall time and, since other work on the machine disturbs that, of CPU time.

Bodies and batches: ``demo`` is the model that ``dvpo warmstart`` makes, with random weights, on 128 demonstrations of
the demo task. The others are Qwen2 bodies on random tokens, half of them sampled. The heads start as they are after
training, with about half of neighbouring raw outputs out of order; fresh heads are in order, and sort faster.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers import Qwen2Config, Qwen2Model

from cluster.warmstart.warmstart import WarmstartConfig, build_model, build_tokenizer, make_corpus
from learner.algorithms.catalogue import build_algorithm
from learner.config import LearnerConfig
from learner.engine.deepspeed_engine import DeepSpeedEngine, start_process_group
from learner.models.critic import CriticModel
from learner.update.collective import TorchCollective
from learner.update.learner import Learner
from learner.update.rank import UpdateSettings
from learner.update.rank_update import RankUpdate
from rollout.tasks.chain import Chain
from rollout.trajectory import FinishReason, ScoredTrajectory, Trajectory

CPU = torch.device("cpu")
PRESETS = ("ppo", "dvpo")
RAW_SPREAD = 0.5
"""Standard deviation that is added to the heads' biases: neighbours are then out of order half of the time."""


DEMO_OPTIONS = {"critic": {"num_heads": 2, "num_quantiles": 32}, "alpha": 0.2, "beta": 0.2}
"""Those of configs/demo.yaml."""


@dataclass(frozen=True)
class Setting:
    """A body and the batch for it."""

    name: str
    config: Qwen2Config
    samples: Sequence[ScoredTrajectory]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """Real tokens of the batch."""
        return sum(len(s.trajectory.token_ids) for s in self.samples)

    def describe(self) -> str:
        """One cell of the table."""
        actions = sum(s.trajectory.num_response_tokens for s in self.samples)
        shape = f"{self.config.hidden_size} x {self.config.num_hidden_layers}"
        head = build_algorithm("dvpo", self.options).critic_config
        assert head is not None
        critic = f"{head.num_heads} x {head.num_quantiles}"
        rows = len(self.samples)
        return f"{self.name} ({shape}) | {critic} | {rows} x {self.num_tokens / rows:.0f} | {actions}"


def scored(prompt: Sequence[int], response: Sequence[int], index: int, reward: float) -> ScoredTrajectory:
    """A trajectory of given tokens."""
    trajectory = Trajectory(
        prompt_id=f"p{index}",
        sample_index=0,
        token_ids=(*prompt, *response),
        action_mask=(False,) * len(prompt) + (True,) * len(response),
        rollout_logprobs=(0.0,) * len(prompt) + (-1.0,) * len(response),
        response_text="",
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )
    return ScoredTrajectory(trajectory=trajectory, reward=reward, group_id=f"p{index}@0")


def demo(number: int = 128) -> Setting:
    """The demo model and its batch."""
    config = WarmstartConfig(num_demonstrations=number)
    task = Chain(Chain.Config())
    tokenizer = build_tokenizer(task.alphabet(), config.max_position)
    pairs = make_corpus(task, tokenizer, config)
    rng = random.Random(0)
    samples = [
        scored(prompt, response, index, float(rng.random() < 0.5)) for index, (prompt, response) in enumerate(pairs)
    ]
    return Setting("demo", build_model(tokenizer, config).config, samples)


def qwen2(hidden_size: int, num_layers: int, **options: Any) -> Qwen2Config:
    """A body with heads of 64 dimensions."""
    return Qwen2Config(
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        **options,
    )


def larger(hidden_size: int, num_layers: int, length: int, number: int) -> Setting:
    """A larger body on random tokens."""
    config = qwen2(hidden_size, num_layers, vocab_size=1024, max_position_embeddings=length)
    rng = random.Random(0)
    draw = lambda: [rng.randrange(1024) for _ in range(length // 2)]  # noqa: E731
    return Setting("Qwen2", config, [scored(draw(), draw(), i, float(rng.random() < 0.5)) for i in range(number)])


def make_learner(preset: str, setting: Setting) -> Learner:
    """One rank with a critic and no policy: only the critic is updated."""
    torch.manual_seed(0)
    algorithm = build_algorithm(preset, setting.options if preset == "dvpo" else {})
    assert algorithm.critic_config is not None
    critic = CriticModel(Qwen2Model(setting.config).float(), algorithm.critic_config, seed=0)
    with torch.no_grad():
        bias: Any = critic.heads.bias
        bias.add_(RAW_SPREAD * torch.randn_like(bias))
    config = LearnerConfig(critic_lr=1e-5, lr_warmup_frac=0.0)
    policy: Any = None
    engine = DeepSpeedEngine(critic, config)
    return Learner(algorithm, policy, engine, None, TorchCollective(CPU), UpdateSettings(config, num_updates=10**6))


def one_update(learner: Learner, samples: Sequence[ScoredTrajectory], index: int) -> tuple[float, float, float]:
    """Wall and CPU seconds of the critic's optimiser step, and the share of raw outputs that were out of order."""
    spent: list[float] = []

    def optimise(update: RankUpdate, *arguments: Any) -> None:
        start = time.perf_counter(), time.process_time()
        RankUpdate.optimise(update, *arguments)
        spent.extend((time.perf_counter() - start[0], time.process_time() - start[1]))

    with patch("learner.update.learner.RankUpdate", type("Timed", (RankUpdate,), {"optimise": optimise})):
        result = learner.update(samples, index, critic_only=True)
    crossing = result.metrics.get("critic/crossing_frac")
    return spent[0], spent[1], crossing.value if crossing else 0.0


def compare(setting: Setting, repeats: int) -> str:
    """A row of the table."""
    learners = {preset: make_learner(preset, setting) for preset in PRESETS}
    rows: list[dict[str, tuple[float, float, float]]] = []
    for index in range(repeats + 2):  # the first two warm up
        rows.append({name: one_update(learner, setting.samples, index) for name, learner in learners.items()})
    measured = rows[2:]
    cells = [f"{1e3 * statistics.median(row[name][1] for row in measured):.0f}" for name in PRESETS]
    for clock in (1, 0):
        cells.append(f"{statistics.median(row['dvpo'][clock] / row['ppo'][clock] for row in measured):.2f}")
    crossing = statistics.median(row["dvpo"][2] for row in measured)
    for learner in learners.values():
        assert learner.critic is not None
        learner.critic.close()
    return f"| {setting.describe()} | " + " | ".join(cells) + f" | {crossing:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="critic update: dvpo against ppo")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only-demo", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_process_group(0, 1, "127.0.0.1", port, CPU, 60)
    print(f"torch {torch.__version__}, one thread; times are CPU ms\n")
    print("| body (width x layers) | dvpo, heads x quantiles | batch, rows x tokens | sampled | ppo, ms | dvpo, ms"
          " | ratio of CPU time | ratio of wall time | raw crossing |")  # fmt: skip
    print("|---" * 9 + "|")
    settings = [(demo(), args.repeats)]
    if not args.only_demo:
        settings += [(replace(demo(), options=DEMO_OPTIONS), args.repeats)]
        settings += [(larger(256, 4, 512, 8), max(3, args.repeats // 3)), (larger(512, 8, 512, 4), 3)]
    for setting, repeats in settings:
        print(compare(setting, repeats), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
