"""Real learner ranks, in processes that serve one test after the other: to start them takes longer than most tests."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor

from actors.faults import WorkerError
from actors.pools.checkpoint_saver import IO_GROUP
from actors.pools.ranks import Ranks
from actors.processes.interface import interface_of
from actors.workers.learner_worker import LearnerSpec, LearnerWorker
from actors.workers.weight_sender import PolicyOnDevice
from learner.engine import weight_chunks
from learner.storage.files import CheckpointFiles
from learner.storage.manifest import FileFacts


class SpoiltGradient(torch.autograd.Function):
    """What it is given, with a gradient of NaN."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * math.nan


class TestedRanks(Ranks):
    """Ranks that a test calls without an event loop of its own."""

    __test__ = False

    def call_blocking(self, method: str, *args: Any, timeout_s: float) -> list[Any]:
        """:meth:`Ranks.call`."""
        return asyncio.run(self.call(method, *args, timeout_s=timeout_s))

    def call_each(self, method: str, arguments: Sequence[tuple[Any, ...]], *, timeout_s: float) -> list[Any]:
        """:meth:`call_blocking` with own arguments for each rank."""

        async def call() -> list[Any]:
            calls = zip(self.actors, arguments, strict=True)
            started = [getattr(actor, method).remote(*args) for actor, args in calls]
            return await self.gather(started, method, timeout_s=timeout_s)

        return asyncio.run(call())


GATE = "gate"
"""A file beside the checkpoints; while it is there no rank begins to write."""
DEADLY = "deadly"
"""A file beside the checkpoints; while it is there rank 1 is killed when it has begun to write."""


class ExaminedRank(LearnerWorker):
    """A rank that shows what it holds, whose backward pass can be spoilt, and which can be stopped while it writes."""

    def write_snapshot(self, folder: str) -> dict[str, FileFacts]:
        checkpoints = Path(folder).parent
        deadline = time.monotonic() + 60
        while (checkpoints / GATE).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if self.rank == 1 and (checkpoints / DEADLY).exists():
            (Path(folder) / "torn").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write_snapshot(folder)

    def interface(self) -> tuple[str | None, str | None]:
        """What gloo was told to use, and what holds the node's address."""
        return os.environ.get("GLOO_SOCKET_IFNAME"), interface_of(ray.util.get_node_ip_address())

    def sent_by_nccl(self, chunk_numel: int) -> tuple[list[Any], dict[str, np.ndarray], int]:
        """What this rank would broadcast: what it announces, the tensors, and most numbers that were whole at once."""
        weight_chunks.GATHER_NUMEL = chunk_numel
        parameters = dict(self._ready.policy.module.named_parameters())
        weights, found, most = PolicyOnDevice(self._ready), {}, 0
        for name, tensor in weights.tensors():
            own = parameters.get(f"lm.{name}")
            if own is not None:  # not merged
                assert tensor.data_ptr() == own.data_ptr(), "what is sent is no copy"
            found[name] = tensor.numpy().copy()
            most = max(most, sum(parameter.numel() for parameter in parameters.values()))  # of a split one that is 0
        return weights.shapes(), found, most

    def held_numbers(self) -> tuple[bool, bool]:
        """Whether whole weights of the policy and of the reference are here, between two updates."""
        models = [self._ready.policy.module, self._ready.reference]
        there = [max(p.numel() for p in model.parameters()) if model is not None else 0 for model in models]
        return there[0] > 1000, there[1] > 1000  # the small ones stay whole

    def moments(self) -> dict[str, np.ndarray]:
        """Both moments of Adam of every parameter, put together from all ranks."""
        from deepspeed.utils import safe_get_full_optimizer_state

        found = {}
        for name, engine in (("policy", self._ready.policy), ("critic", self._ready.critic)):
            assert engine is not None
            for parameter_name, parameter in engine.module.named_parameters():
                for key in ("exp_avg", "exp_avg_sq"):
                    value = safe_get_full_optimizer_state(parameter, key)
                    found[f"{name}.{parameter_name}.{key}"] = value.reshape(-1).numpy().copy()
        return found

    def differences_from_deepspeed(self, folder: str) -> list[str]:
        """Files in which what is saved differs from what DeepSpeed would have written by itself."""
        path, wrong = Path(folder), []
        for name, engine in (("policy", self._ready.policy), ("critic", self._ready.critic)):
            assert engine is not None
            copy = engine.copy_state()
            engine._engine.save_checkpoint(str(path / name), tag="state", save_latest=False)  # type: ignore[attr-defined]
            files = CheckpointFiles(path)
            copy.write(files, f"{name}-copied")
            for relative in copy.states:
                theirs, ours = path / name / relative, path / f"{name}-copied" / relative
                if not same(torch.load(theirs, weights_only=False), torch.load(ours, weights_only=False)):
                    wrong.append(f"{name}/{relative}")
            self._ready.world.barrier()
            if self.rank == 0:
                listed = [{p.relative_to(d).as_posix() for p in d.rglob("*.p[ty]*")} for d in
                          (path / name, path / f"{name}-copied")]  # fmt: skip
                wrong += sorted(listed[0] ^ listed[1])
        return wrong

    def spoil(self, rank: int, engine: str) -> None:
        """From now on the gradient of a model is NaN on one rank; rank -1 cures all."""
        target = getattr(self._ready, engine)
        target.__dict__.pop("forward", None)
        if rank == self.rank:
            forward = target.forward

            def spoilt(**inputs: object) -> dict[str, Tensor]:
                return {name: SpoiltGradient.apply(value) for name, value in forward(**inputs).items()}

            target.forward = spoilt

    def held(self) -> dict[str, str]:
        """Digests of this rank's weights, optimiser state, and the algorithm's scales and counters."""
        learner = self._ready
        digests = {"algorithm": repr((learner.algorithm.state_dict(), learner.state_dict()))}
        for name, engine in (("policy", learner.policy), ("critic", learner.critic)):
            assert engine is not None
            weights = hashlib.sha256()
            for parameter in engine.module.parameters():
                part = getattr(parameter, "ds_tensor", parameter)  # this rank's part under ZeRO-3
                weights.update(part.detach().float().numpy().tobytes())
            digests[f"{name} weights"] = weights.hexdigest()
            wrapped = engine._engine.optimizer  # type: ignore[attr-defined]
            optimiser = hashlib.sha256()
            for state in getattr(wrapped, "optimizer", wrapped).state.values():
                for key in sorted(state):
                    optimiser.update(torch.as_tensor(state[key]).detach().float().numpy().tobytes())
            digests[f"{name} optimiser"] = optimiser.hexdigest()
        return digests


def same(one: Any, other: Any) -> bool:
    """Equality of whatever DeepSpeed saves, to the last bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return same(vars(one), vars(other)) if hasattr(one, "__dict__") else bool(one == other)


_idle: dict[int, TestedRanks] = {}
"""Groups that no test uses now, by their number of ranks; Ray ends them with the session."""


@contextmanager
def ranks(world: int, what: LearnerSpec) -> Iterator[TestedRanks]:
    """Learner ranks that have been set up with ``what``.

    Their processes may have served other tests of as many ranks, each with models and optimisers of its own. Those of a
    test that fails, or kills one, are not used again.
    """
    group = _idle.pop(world, None) or _started(world)
    try:
        host, port = group.call_blocking("address", timeout_s=60)[0]
        arguments = [(rank, world, host, port, what) for rank in range(world)]
        group.call_each("setup", arguments, timeout_s=120)
        yield group
    except BaseException:
        group.kill()
        raise
    try:
        group.call_blocking("shutdown", timeout_s=60)
    except WorkerError:  # the test has killed one
        group.kill()
    else:
        _idle[world] = group


def _started(world: int) -> TestedRanks:
    remote = ray.remote(num_cpus=0, concurrency_groups={IO_GROUP: 1})(ExaminedRank)
    return TestedRanks([remote.remote() for _ in range(world)], "learner")
