"""Environment variables that hold for all workers of a run."""

from __future__ import annotations

from cluster.config.processes.search_path import workers_path
from cluster.config.run_config import RunConfig
from learner.config import learner_environment
from rollout.sampling.vllm_options import engine_environment


def preload_environment(config: RunConfig) -> dict[str, str] | None:
    """Environment of the process that workers are forked from; None where they are not, as with GPUs."""
    machines = config.cluster
    if not machines.preload or machines.gpus_per_rollout_worker or machines.gpus_per_learner_worker:
        return None
    common = engine_environment(on_gpu=False) | learner_environment(on_gpu=False)
    return common | {"PYTHONPATH": workers_path()}
