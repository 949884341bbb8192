"""One rollout worker: a vLLM engine, weights that follow the learner."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import ray

from actors.calls.batched_actor import BatchedActor
from actors.processes.garbage import keep_what_is_there
from actors.processes.interface import use_interface_of
from rollout.component import ComponentSpec
from rollout.config import RolloutConfig
from rollout.conversation.runner import Runner
from rollout.sampling.engine import LoadOutcome
from rollout.sampling.evaluation import EvaluationSampling
from rollout.sampling.vllm_engine import VllmEngine
from rollout.sampling.vllm_inline import InlineVllmEngine
from rollout.sampling.weight_check import TensorFact
from rollout.tasks.environments import environment_maker
from rollout.trajectory import SampleRequest, Trajectory, TrajectorySummary


class RolloutWorker(BatchedActor):
    """Serves sampling requests with one engine. An asyncio actor: many requests are open at the same time.

    Args:
        name: recorded in trajectories and messages.
        model_path: folder or hub id of the policy.
        tokenizer_path: folder or hub id of its tokenizer.
        config: see :class:`RolloutConfig`.
        run_seed: first part of the name of every random stream.
        on_gpu: whether the engine has GPUs.
        trust_remote_code: passed on to vLLM and transformers.
        transfer_backend: vLLM weight-transfer back end to prepare, or None.
        task: what the prompts come from, which may have environments for them; None if it has none.
        seeded: whether each response has a random stream of its own, see ``rollout.reproducible``.
    """

    def __init__(
        self,
        name: str,
        model_path: str,
        tokenizer_path: str,
        config: RolloutConfig,
        run_seed: int,
        on_gpu: bool,
        trust_remote_code: bool = False,
        transfer_backend: str | None = None,
        task: ComponentSpec | None = None,
        seeded: bool = True,
    ) -> None:
        self._name = name
        self._paths = (model_path, tokenizer_path)
        self._config = config
        self._run_seed = run_seed
        self._on_gpu = on_gpu
        self._trust_remote_code = trust_remote_code
        self._transfer_backend = transfer_backend
        self._task = task
        self._seeded = seeded

    async def start(self) -> dict[str, Any]:
        """Start the engine; returns host, pid and the seconds it took."""
        begin = time.monotonic()
        use_interface_of(ray.util.get_node_ip_address(), os.environ)
        await self.serve(self._new_engine())
        keep_what_is_there()
        return {"host": socket.gethostname(), "pid": os.getpid(), "start_s": time.monotonic() - begin}

    def _new_engine(self) -> VllmEngine | InlineVllmEngine:
        model_path, _ = self._paths
        if self._config.engine_process == "own" or self._on_gpu:
            return VllmEngine(model_path, self._config, self._on_gpu, self._trust_remote_code, self._transfer_backend)
        return InlineVllmEngine(model_path, self._config, self._trust_remote_code)

    async def serve(self, engine: VllmEngine | InlineVllmEngine) -> None:
        """Answer requests with an engine that has been started."""
        from transformers import AutoTokenizer  # here, so that the process that merely wraps the class stays light

        _, tokenizer_path = self._paths
        make_environment = None if self._task is None else environment_maker(self._task)
        self._engine = engine
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_path, trust_remote_code=self._trust_remote_code)
        self._runner = Runner(
            self._engine, tokenizer, self._config, self._run_seed, self._name, make_environment, self._seeded
        )
        await self._engine.set_version(0)

    async def sample(self, request: SampleRequest) -> tuple[TrajectorySummary, Trajectory]:
        """One training trajectory: a small record, and the bulk that stays in the object store."""
        trajectory = await self._runner.sample(request)
        return TrajectorySummary.of(trajectory), trajectory

    async def respond_greedily(self, request: SampleRequest) -> Trajectory:
        """One greedy response, for evaluation."""
        return await self._runner.respond_greedily(request)

    async def respond(self, request: SampleRequest, sampling: EvaluationSampling) -> Trajectory:
        """One response sampled at a setting of its own, for evaluation."""
        return await self._runner.respond(request, sampling)

    async def score(self, token_ids: tuple[int, ...]) -> list[float]:
        """Log-probability of each token at temperature 1, for checking the weights."""
        return await self._engine.score(token_ids)

    async def load_weights(self, weights: dict[str, Any], facts: dict[str, TensorFact], version: int) -> LoadOutcome:
        """Take new weights (numpy arrays by name), see :meth:`VllmEngine.load_weights`."""
        return await self._engine.load_weights(weights, facts, version)

    async def set_version(self, version: int) -> int:
        """Name the current weights ``version`` without changing them."""
        await self._engine.set_version(version)
        return version

    async def transfer(self, stage: str, payload: dict[str, Any] | None = None) -> None:
        """One stage of vLLM's weight-transfer protocol; see :meth:`VllmEngine.transfer`."""
        assert isinstance(self._engine, VllmEngine), "an engine in the worker's process has no NCCL"
        await self._engine.transfer(stage, payload)

    async def pause(self) -> None:
        """Stop stepping; open requests stay."""
        await self._engine.pause()

    async def resume(self) -> None:
        """Step again; the KV cache of open requests is computed anew."""
        await self._engine.resume()

    async def stats(self) -> dict[str, float]:
        """vLLM's own counters."""
        return await self._engine.stats()

    async def stop(self) -> None:
        """Shut the engine and its child process down."""
        await self._engine.shutdown()
