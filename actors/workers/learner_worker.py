"""One learner rank: owns the engines of policy and critic, and forwards calls to them.

An ordinary class; ``cluster/run/start.py`` makes a Ray actor of it. torch is imported in :meth:`LearnerWorker.setup`
only, so that the process that merely wraps the class stays light, and so that thread counts are set before.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from actors.calls.chunks import Place, unpacked
from actors.faults import LearnerError
from actors.processes.interface import use_interface_of
from actors.workers.learner_build import LearnerSpec, build_learner
from actors.workers.weight_sender import WeightSender
from learner.config import check_compatible
from learner.storage.manifest import FileFacts, SnapshotFacts
from learner.update.result import UpdateResult
from rollout.component import UserError
from rollout.trajectory import Label, ScoredTrajectory

__all__ = ["LearnerSpec", "LearnerWorker"]

if TYPE_CHECKING:
    import numpy as np

    from learner.checkpoint.snapshot import Snapshot
    from learner.update.learner import Learner
    from rollout.sampling.weight_check import TensorFact


class LearnerWorker:
    """One rank. Every method but :meth:`address` and :meth:`rss` is to be called on all ranks at once.

    Raises:
        LearnerError: anything that goes wrong, with rank and step in the message. Mistakes of the user's stay
            :class:`UserError`.
    """

    def __init__(self) -> None:
        self.rank, self.world = 0, 1
        self._learner: Learner | None = None
        self._spec: LearnerSpec | None = None
        self._snapshot: Snapshot | None = None

    def address(self) -> tuple[str, int]:
        """IP address of this process's host and a port that is free there, for the ranks to meet at rank 0."""
        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind(("", 0))
            port: int = probe.getsockname()[1]
        return host, port

    def setup(self, rank: int, world: int, host: str, port: int, spec: LearnerSpec) -> dict[str, float]:
        """Join the other ranks and load the models.

        Returns:
            ``setup_s``, ``policy_parameters`` and ``critic_parameters``.
        """
        self.rank, self.world, self._spec = rank, world, spec
        start = time.perf_counter()
        with self._doing("setup"):
            check_compatible(spec.model, spec.learner)
            use_interface_of(ray.util.get_node_ip_address(), os.environ)
            self._learner = build_learner(rank, world, host, port, spec)
            self._sender = WeightSender(self._learner, rank)
        return {"setup_s": time.perf_counter() - start, **_sizes(self._learner)}

    def update(self, samples: Sequence[ScoredTrajectory], update_index: int, critic_only: bool = False) -> UpdateResult:
        """Train on one global batch, see :meth:`learner.update.learner.Learner.update`."""
        with self._doing(f"update {update_index}"):
            return self._ready.update(samples, update_index, critic_only)

    def train(
        self,
        update_index: int,
        critic_only: bool,
        rates: tuple[float, float] | None,
        labels: Sequence[Label],
        places: Sequence[Place],
        *chunks: Any,
    ) -> UpdateResult:
        """:meth:`update` on trajectories that Ray has fetched from the object store, with their labels.

        Args:
            rates: the reward's estimated false positive and false negative rate, where the run has estimates.
            labels, places: of each trajectory; where it is in ``chunks``.
        """
        if rates is not None:
            self._ready.algorithm.set_rates(*rates)
        # From here on nothing knows texts or outcomes any more: a scored trajectory keeps the tokens only.
        samples = [
            ScoredTrajectory(trajectory=trajectory, **asdict(label))
            for trajectory, label in zip((unpacked(place, chunks) for place in places), labels, strict=True)
        ]
        return self.update(samples, update_index, critic_only)

    def open_transfer(self, engines: list[Any], engine_world_size: int, address: str) -> str:
        """Open vLLM's NCCL group with the rollout workers ``engines``; see :class:`WeightSender`. Needs GPUs."""
        with self._doing("open_transfer"):
            return self._sender.open(engines, engine_world_size, address)

    def send_weights(self) -> str:
        """Gather the policy's weights and broadcast them to that group; see :class:`WeightSender`."""
        with self._doing("send_weights"):
            return self._sender.send()

    def send_weights_to(self, engine: Any, engine_world_size: int, address: str) -> str:
        """The same to one engine outside of the group; see :class:`WeightSender`."""
        with self._doing("send_weights_to"):
            return self._sender.send_to(engine, engine_world_size, address)

    def export_weights(self, checksums: bool) -> tuple[dict[str, np.ndarray] | None, dict[str, TensorFact] | None]:
        """Every policy weight by its name in the model's files, float32, and its facts, on rank 0; else None twice.

        A tied LM head is left out, as vLLM's own loader wants it. ``checksums``: whether the facts have them.
        """
        from learner.checkpoint.published import published_weights
        from rollout.sampling.weight_check import facts_of

        with self._doing("export_weights"):
            published = published_weights(self._ready, in_float32=True)
            weights = {name: weight.float().numpy() for name, weight in published}
            return (weights, facts_of(weights, checksums)) if self.rank == 0 else (None, None)

    def logprobs(self, token_ids: Sequence[Sequence[int]], temperature: float = 1.0) -> list[list[float]]:
        """Log-probability of each token given those before it under the current weights, 0.0 for the first."""
        with self._doing("logprobs"):
            return self._ready.logprobs(token_ids, temperature)

    def take_snapshot(self, extra: dict[str, Any] | None = None) -> SnapshotFacts:
        """Copy what a checkpoint holds of this rank into memory; ``extra`` (JSON) is kept with it."""
        from learner.checkpoint.snapshot import take_snapshot

        with self._doing("take_snapshot"):
            assert self._spec is not None
            self._snapshot = None  # what was never written goes first, or memory would hold two
            self._snapshot = take_snapshot(self._ready, self._spec.model, extra or {})
            return self._snapshot.facts

    def write_snapshot(self, folder: str) -> dict[str, FileFacts]:
        """Write what :meth:`take_snapshot` copied into ``folder``; returns size and hash of each file.

        May run beside any other method, in another thread. The copy is kept if writing fails.
        """
        with self._doing(f"write_snapshot {folder}"):
            if self._snapshot is None:
                raise RuntimeError("take_snapshot() has not been called")
            files = self._snapshot.write(Path(folder))
            self._snapshot = None
            return files

    def load(self, path: str) -> dict[str, Any]:
        """Restore a checkpoint and return its ``extra``."""
        from learner.checkpoint.load import load_checkpoint

        with self._doing(f"load {path}"):
            return load_checkpoint(self._ready, Path(path))

    def rss(self) -> int:
        """Resident memory of this process, in bytes."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def shutdown(self) -> None:
        """Free the engines; :meth:`setup` may be called again.

        The group of ranks stays until the process ends: DeepSpeed keeps its groups in module variables, and a second
        process group in the same process is unknown to them.
        """
        if self._learner is not None:
            for engine in filter(None, (self._learner.policy, self._learner.critic)):
                engine.close()
            self._learner = None

    @property
    def _ready(self) -> Learner:
        if self._learner is None:
            raise RuntimeError("setup() has not been called")
        return self._learner

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the worker's boundary: say which rank and step
            reason = f"learner rank {self.rank} of {self.world}, {what}: {type(error).__name__}: {error}"
            raise LearnerError(reason) from error


def _sizes(learner: Learner) -> dict[str, float]:
    """Numbers of parameters."""
    engines = {"policy_parameters": learner.policy, "critic_parameters": learner.critic}
    return {name: float(e.num_parameters) if e is not None else 0.0 for name, e in engines.items()}
