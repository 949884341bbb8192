"""The memory plan of ``dvpo plan`` against what tensors really take: one learner rank, on CPUs, counted by torch.

``python -m benchmarks.memory_plan`` prints the table of docs/gpus.md.

How it is measured. The real engines (DeepSpeed, AdamW), models of made-up weights, and two whole updates through the
learner's own code, in a process for each case and rank. Every tensor that torch makes is counted from its making until
it is freed (:mod:`benchmarks.live_tensors`), so it is what a GPU's allocator would be asked for; what one operation
takes inside of itself is not seen. Buckets of DeepSpeed are made small, as the models are.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
import torch.multiprocessing as mp

from benchmarks.live_tensors import LiveTensors
from rollout.trajectory import FinishReason, ScoredTrajectory, Trajectory

BASE: dict[str, Any] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "vocab_size": 2048,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Case:
    """One learner.

    Attributes:
        shape: of the model, on top of :data:`BASE`.
        run: keys of the configuration, on top of small ones.
        ranks: processes that share the batch.
        rows, prompt, response: trajectories of one step, and their tokens.
    """

    shape: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    ranks: int = 1
    rows: int = 8
    prompt: int = 32
    response: int = 224


WIDE = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 16}
CASES: dict[str, Case] = {
    "grpo, ZeRO 2": Case(run={"algorithm": "grpo"}),
    "ppo, ZeRO 2": Case(run={"algorithm": "ppo"}),
    "dvpo, ZeRO 2": Case(run={"algorithm": "dvpo"}),
    "dvpo, ZeRO 3": Case(run={"algorithm": "dvpo", "learner.zero_stage": 3}),
    "ppo, bfloat16, ZeRO 2, wide": Case(WIDE, {"algorithm": "ppo", "model.dtype": "bfloat16"}),
    "grpo, KL, activations again": Case(
        run={"algorithm": {"preset": "grpo", "kl_coef": 0.01}, "model.gradient_checkpointing": True}, response=480
    ),
    "ppo, ZeRO 3, two ranks": Case(run={"algorithm": "ppo", "learner.zero_stage": 3}, ranks=2),
    "dvpo, ZeRO 2, two ranks, long": Case(run={"algorithm": "dvpo"}, ranks=2, rows=4, response=992),
    "dvpo, adapters, ZeRO 2": Case(run={"algorithm": "dvpo", "model.lora": {}}),
    "grpo, KL, adapters, activations again": Case(
        run={
            "algorithm": {"preset": "grpo", "kl_coef": 0.01},
            "model.gradient_checkpointing": True,
            "model.lora": {},
        },
        response=480,
    ),
    "ppo, bfloat16, adapters of both, ZeRO 3": Case(
        WIDE,
        {"algorithm": "ppo", "model.dtype": "bfloat16", "model.lora": {"critic": "adapter"}, "learner.zero_stage": 3},
    ),
    "grpo, large vocabulary, tied": Case({"vocab_size": 16384, "tie_word_embeddings": True}, {"algorithm": "grpo"}),
}


def configuration(case: Case, folder: Path) -> Any:
    """The run's configuration; the model's folder has nothing but a config.json."""
    from cluster.config.run_config import parse_config
    from cluster.config.yaml_source import read_source

    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text(json.dumps(BASE | case.shape))
    values: dict[str, Any] = {
        "learner.num_workers": case.ranks,
        "learner.micro_batch_tokens": 1024,
        "learner.deepspeed": {
            "zero_optimization": {
                "reduce_bucket_size": 200_000,
                "allgather_bucket_size": 200_000,
                "stage3_param_persistence_threshold": 1000,
                "stage3_max_live_parameters": 2_000_000,
                "stage3_prefetch_bucket_size": 100_000,
            }
        },
        "rollout.max_prompt_tokens": case.prompt,
        "rollout.sampling.max_response_tokens": case.response,
        "training.prompts_per_step": 2,
        "training.samples_per_prompt": case.rows // 2,
        **case.run,
    }
    file = folder / "run.yaml"
    file.write_text(f"model: {{path: {folder / 'model'}}}\n")
    return parse_config(read_source(file, [f"{key}={json.dumps(value)}" for key, value in values.items()]))


def samples(case: Case, seed: int) -> list[ScoredTrajectory]:
    """Trajectories of the greatest length."""
    g = torch.Generator().manual_seed(seed)
    found = []
    for row in range(case.rows):
        ids = torch.randint(0, 2000, (case.prompt + case.response,), generator=g).tolist()
        trajectory = Trajectory(
            prompt_id=f"p{row % 2}",
            sample_index=row,
            token_ids=tuple(ids),
            action_mask=(False,) * case.prompt + (True,) * case.response,
            rollout_logprobs=(0.0,) * case.prompt + (-7.0,) * case.response,
            response_text="",
            finish_reason=FinishReason.STOP,
            policy_version_min=0,
            policy_version_max=0,
        )
        found.append(ScoredTrajectory(trajectory=trajectory, reward=float(row % 3 == 0), group_id=f"p{row % 2}@0"))
    return found


def measure(case: Case, rank: int, port: int) -> tuple[int, int]:
    """Bytes of one rank between two updates, and at the peak of the second one."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from cluster.config.components import build_algorithm
    from learner.engine.deepspeed_engine import DeepSpeedEngine, start_process_group
    from learner.models.critic import CriticModel, critic_over_policy
    from learner.models.lora.adapters import FrozenBase, add_adapters
    from learner.models.policy import TORCH_DTYPES, PolicyModel
    from learner.update.collective import TorchCollective
    from learner.update.learner import Learner
    from learner.update.rank import UpdateSettings

    torch.set_num_threads(1)
    device = torch.device("cpu")
    start_process_group(rank, case.ranks, "127.0.0.1", port, device, 120)
    with tempfile.TemporaryDirectory() as scratch:
        run = configuration(case, Path(scratch))
        shape = AutoConfig.from_pretrained(run.model.path)
    algorithm, dtype = build_algorithm(run), TORCH_DTYPES[run.model.dtype]
    torch.manual_seed(0)
    live = LiveTensors()
    with live:

        def made(kind: Any, number: torch.dtype) -> Any:
            model = kind.from_config(shape).to(number)
            if run.model.gradient_checkpointing:
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            return model.train()

        lora, half = run.model.lora, run.model.dtype == "bfloat16"
        policy_model = PolicyModel(made(AutoModelForCausalLM, dtype), True)
        reference: PolicyModel | FrozenBase | None = None
        if lora is not None:
            policy_model.adapters = add_adapters(policy_model, policy_model.lm, lora, run.model.path, 0)
        elif algorithm.needs_reference:
            reference = PolicyModel(made(AutoModelForCausalLM, dtype), True).requires_grad_(False).eval()
        critic_model = None
        if algorithm.critic_config is not None and run.model.critic_adapts:
            critic_model = critic_over_policy(run.model, algorithm.critic_config, 0, policy_model)
        elif algorithm.critic_config is not None:
            body = made(AutoModel, torch.float32)
            critic_model = CriticModel(body, algorithm.critic_config, 0, half, None, True)
        policy = DeepSpeedEngine(policy_model, run.learner, half, saves_frozen=lora is None)
        critic = None if critic_model is None else DeepSpeedEngine(critic_model, run.learner)
        if lora is not None:
            reference = FrozenBase(policy_model, policy.forward)
        settings = UpdateSettings(run.learner, 10)
        learner = Learner(algorithm, policy, critic, reference, TorchCollective(device), settings)
        learner.update(samples(case, 0), 0)
        live.peak = between = live.now
        result = learner.update(samples(case, 1), 1)
        assert result.skipped == "", result.skipped
    return between, live.peak


def _rank(case: Case, rank: int, port: int, queue: Any) -> None:
    queue.put(measure(case, rank, port))


def measured(case: Case) -> tuple[int, int]:
    """The largest of all ranks: between updates, and at the peak."""
    context = mp.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    queue = context.Queue()
    processes = [context.Process(target=_rank, args=(case, rank, port, queue)) for rank in range(case.ranks)]
    for process in processes:
        process.start()
    try:
        found = [queue.get(timeout=300) for _ in processes]
    finally:
        for process in processes:
            process.join(30)
            process.kill()
    return max(between for between, _ in found), max(peak for _, peak in found)


def planned(case: Case) -> tuple[int, int]:
    """What the plan says: between updates, and at the peak."""
    from cluster.check.memory_plan.plan import plan_run
    from cluster.config.components import build_algorithm

    with tempfile.TemporaryDirectory() as scratch:
        run = configuration(case, Path(scratch))
        rank = plan_run(run, build_algorithm(run), None).rank
    return rank.resident, rank.total


def main(wanted: str) -> None:
    """Print the table."""
    print("| learner rank | planned | measured at the peak | ratio | between updates, planned | measured |")
    print("|---|---|---|---|---|---|")
    for name, case in CASES.items():
        if wanted in name:
            (rest, peak), (found_rest, found) = planned(case), measured(case)
            mib = [f"{value / 2**20:.0f} MiB" for value in (peak, found, rest, found_rest)]
            print(f"| {name} | {mib[0]} | {mib[1]} | {peak / found:.2f} | {mib[2]} | {mib[3]} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="Cases whose name has this in it.")
    main(parser.parse_args().only)
