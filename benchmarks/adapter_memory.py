"""Memory of one learner update with and without adapters (LoRA), of a real model, counted tensor by tensor.

``python -m benchmarks.adapter_memory MODEL`` prints the table of docs/gpus.md; MODEL is a folder in Hugging Face
format.

The learner is the one of a run (:func:`actors.workers.learner_build.build_learner`: the model's weights, DeepSpeed with
ZeRO stage 2, one rank), in a process for each case. Tensors are counted from their making until they are freed
(:mod:`benchmarks.live_tensors`), what loading takes left out. A first update on two short responses makes the
optimiser's states, and the second one is measured. A CPU's host memory is its device's: how much ``learner.offload``
would take off a GPU is therefore known by the tensors that it moves, the optimiser's, in a column of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
import torch.multiprocessing as mp
from torch import Tensor

from benchmarks.live_tensors import LiveTensors
from benchmarks.memory_plan import Case, samples

BOTH: dict[str, Any] = {"model.lora": {"critic": "adapter"}}
HALF: dict[str, Any] = {"model.dtype": "bfloat16"}
AGAIN: dict[str, Any] = {"model.gradient_checkpointing": True}
OFFLOAD: dict[str, Any] = {"learner.offload": "optimizer"}
KL: dict[str, Any] = {"algorithm": {"preset": "grpo", "kl_coef": 0.01}}
CASES: dict[str, dict[str, Any]] = {
    "dvpo": {},
    "dvpo, bfloat16": HALF,
    "dvpo, activations again": AGAIN,
    "dvpo, bfloat16, activations again, offload": HALF | AGAIN | OFFLOAD,
    "dvpo, adapters of the policy": {"model.lora": {}},
    "dvpo, adapters of both": BOTH,
    "dvpo, adapters of both, bfloat16": BOTH | HALF,
    "dvpo, adapters of both, activations again": BOTH | AGAIN,
    "dvpo, adapters of both, bfloat16, activations again, offload": BOTH | HALF | AGAIN | OFFLOAD,
    "grpo with KL": KL,
    "grpo with KL, adapters": KL | {"model.lora": {}},
    "grpo with KL, adapters, bfloat16, activations again": KL | {"model.lora": {}} | HALF | AGAIN,
}
BATCH = Case(rows=8, prompt=64, response=64)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Bytes of one rank.

    Attributes:
        between, peak: between two updates, and at the peak of one.
        optimiser: of these, the optimiser's states.
        update_s: seconds of the update.
    """

    between: int
    peak: int
    optimiser: int
    update_s: float


def configuration(model: Path, case: dict[str, Any], folder: Path) -> Any:
    """The run's configuration."""
    from cluster.config.run_config import parse_config
    from cluster.config.yaml_source import read_source

    values: dict[str, Any] = {
        "algorithm": {"preset": "dvpo", "critic": {"num_heads": 2, "num_quantiles": 32}},
        "learner.micro_batch_tokens": BATCH.rows * (BATCH.prompt + BATCH.response),
        "rollout.max_prompt_tokens": BATCH.prompt,
        "rollout.sampling.max_response_tokens": BATCH.response,
        "training.prompts_per_step": 2,
        "training.samples_per_prompt": BATCH.rows // 2,
        **case,
    }
    file = folder / "run.yaml"
    file.write_text(f"model: {{path: {model}}}\n")
    return parse_config(read_source(file, [f"{key}={json.dumps(value)}" for key, value in values.items()]))


def measure(model: Path, case: dict[str, Any], threads: int) -> Found:
    """Build a learner, let it make two updates, and count."""
    from actors.workers.learner_build import LearnerSpec, build_learner

    with tempfile.TemporaryDirectory() as scratch:
        run = configuration(model, case, Path(scratch))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spec = LearnerSpec(
        run.model, run.learner, run.algorithm.name, run.algorithm.options, num_updates=10, num_threads=threads
    )
    live = LiveTensors()
    with live:
        learner = build_learner(0, 1, "127.0.0.1", port, spec)
        engines = [engine for engine in (learner.policy, learner.critic) if engine is not None]
        models = [learner.policy.module, *(e.module for e in engines[1:]), learner.reference]
        for parameter in (p for owner in models if owner is not None for p in owner.parameters()):
            live.hold(parameter)  # loaded where no operation is seen
        short = Case(rows=2, prompt=8, response=8)
        first = learner.update(samples(short, 0), 0)
        live.peak = between = live.now
        start = time.perf_counter()
        second = learner.update(samples(BATCH, 1), 1)
    assert not first.skipped and not second.skipped, (first.skipped, second.skipped)
    of_optimisers = sum(states_of(engine) for engine in engines)
    return Found(between=between, peak=live.peak, optimiser=of_optimisers, update_s=time.perf_counter() - start)


def states_of(engine: Any) -> int:
    """Bytes of an engine's optimiser: both moments, and float32 master weights."""
    inside = engine._engine.optimizer
    found = {
        id(t): t.nbytes for state in inside.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)
    }
    found |= {id(t): t.nbytes for t in inside.single_partition_of_fp32_groups}
    return sum(found.values())


def planned(model: Path, case: dict[str, Any]) -> int:
    """The peak by the plan."""
    from cluster.check.memory_plan.plan import plan_run
    from cluster.config.components import build_algorithm

    with tempfile.TemporaryDirectory() as scratch:
        run = configuration(model, case, Path(scratch))
    return plan_run(run, build_algorithm(run), None).rank.total


def _measure(model: Path, case: dict[str, Any], threads: int, queue: Any) -> None:
    queue.put(measure(model, case, threads))


def main(model: Path, wanted: str, threads: int) -> None:
    """Print the table."""
    print("| update | between updates | at the peak | planned | of these the optimiser's | update |")
    print("|---|---|---|---|---|---|")
    context = mp.get_context("spawn")
    for name in (name for name in CASES if wanted in name):
        queue = context.Queue()
        process = context.Process(target=_measure, args=(model, CASES[name], threads, queue))
        process.start()
        try:
            found: Found = queue.get(timeout=1800)
        finally:
            process.join(30)
            process.kill()
        sizes = (found.between, found.peak, planned(model, CASES[name]), found.optimiser)
        mib = " | ".join(f"{size / 2**20:,.0f} MiB" for size in sizes)
        print(f"| {name} | {mib} | {found.update_s:.0f} s |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--only", default="", help="Cases whose name has this in it.")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    main(chosen.model.resolve(), chosen.only, chosen.threads)
