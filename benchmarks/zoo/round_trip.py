"""One model's way from a learner to a vLLM engine, each in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from benchmarks.zoo.families import Member, change, make

IDS = tuple(range(3, 35))
"""Whose log-probabilities are compared."""
NUM_SYNCS = 2
LIMIT_S = 150.0
IN_BFLOAT16 = ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe_text")
"""What vLLM computes in bfloat16 only on a CPU."""


@dataclass(frozen=True)
class Trip:
    """What came of it, in nats.

    Attributes:
        from_disk: largest distance of engine and learner before anything was sent.
        after_sync: the same after the last of :data:`NUM_SYNCS` changes of all weights.
        from_fresh: largest distance, after it, of the engine from one that was started with the same weights.
        moved: how far the last change moved the learner.
    """

    from_disk: float
    after_sync: float
    from_fresh: float
    moved: float


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result in a fork of this process, which has to have started no thread.

    Raises:
        RuntimeError: what it raised, or that it took longer than :data:`LIMIT_S`.
    """
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=_answer, args=(answers, function, *arguments))
    process.start()
    try:
        result, error = answers.get(timeout=LIMIT_S)
    except Empty:
        result, error = None, f"no answer within {LIMIT_S:g} s"
    process.join(10)
    process.kill()
    process.join()
    if error:
        raise RuntimeError(error)
    return result


def _answer(answers: Any, function: Callable[..., Any], *arguments: Any) -> None:
    try:
        answers.put((function(*arguments), ""))
    except BaseException as error:  # the process's boundary
        traceback.print_exc()
        answers.put((None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
    answers.close()
    answers.join_thread()
    os._exit(0)  # what vLLM leaves behind ends with the process


def learn(member: Member, folder: Path) -> list[tuple[list[float], Any, Any]]:
    """Make the model, and change it with a learner's own engine: log-probabilities, weights and facts of each state.

    The first state is that of the files, and the last one is written to ``folder / "last"``.
    """
    from actors.workers.learner_worker import LearnerSpec, LearnerWorker
    from learner.checkpoint.snapshot import take_snapshot
    from learner.config import LearnerConfig, ModelConfig

    make(member, folder)
    rank, model = LearnerWorker(), ModelConfig(path=str(folder))
    rank.setup(0, 1, *rank_address(), LearnerSpec(model, LearnerConfig(zero_stage=0), "grpo"))
    learner = rank._learner
    assert learner is not None
    states: list[tuple[list[float], Any, Any]] = [(rank.logprobs([IDS])[0], None, None)]
    for seed in range(NUM_SYNCS):
        change(learner.policy.module.lm, 10 + seed)
        weights, facts = rank.export_weights(True)
        assert weights is not None
        copies = {name: weight.copy() for name, weight in weights.items()}
        states.append((rank.logprobs([IDS])[0], copies, facts))
    last = folder / "last"
    last.mkdir()
    take_snapshot(learner, model, {}).exports["policy"].write(last)
    return states


def rank_address() -> tuple[str, int]:
    """Where the only rank meets itself."""
    import socket

    with socket.socket() as probe:
        probe.bind(("", 0))
        return "127.0.0.1", int(probe.getsockname()[1])


def serve(folder: Path, dtype: str, states: list[tuple[list[float], Any, Any]]) -> list[list[float]]:
    """Start an engine from ``folder``, load each state, and give its log-probabilities at each.

    Raises:
        RuntimeError: the engine has not loaded all.
    """
    from rollout.config import RolloutConfig
    from rollout.sampling.vllm_inline import InlineVllmEngine

    limits: dict[str, Any] = {"max_prompt_tokens": 48, "kv_cache_mib": 64, "sampling": {"max_response_tokens": 16}}

    async def scores() -> list[list[float]]:
        engine = InlineVllmEngine(str(folder), RolloutConfig(**limits, max_concurrent_requests=4, dtype=dtype))
        await engine.set_version(0)
        found = []
        for version, (_, weights, facts) in enumerate(states):
            if weights is not None:
                outcome = await engine.load_weights(weights, facts, version)
                if outcome.refused or outcome.not_loaded:
                    raise RuntimeError(f"not loaded: {', '.join([*outcome.refused, *outcome.not_loaded][:3])}")
            found.append(await engine.score(IDS))
        return found

    return asyncio.run(scores())


def round_trip(member: Member, folder: Path) -> Trip:
    """Learner, engine, and a second engine from the learner's checkpoint.

    Raises:
        RuntimeError: one of them failed.
    """
    dtype = "bfloat16" if member.kind in IN_BFLOAT16 else "float32"
    states = apart(learn, member, folder)
    found = apart(serve, folder, dtype, states)
    (fresh,) = apart(serve, folder / "last", dtype, [(states[-1][0], None, None)])
    return Trip(
        from_disk=distance(states[0][0], found[0]),
        after_sync=distance(states[-1][0], found[-1]),
        from_fresh=distance(fresh, found[-1]),
        moved=distance(states[-1][0], states[-2][0]),
    )


def distance(one: list[float], other: list[float]) -> float:
    """Largest difference of a token's log-probability; infinite if one is no number."""
    gap = max(abs(a - b) for a, b in zip(one, other, strict=True))
    return gap if gap == gap else float("inf")
