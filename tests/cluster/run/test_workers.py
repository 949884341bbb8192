"""What the processes of a run are started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.run_config import RunConfig
from cluster.run.workers import learner_environment, learner_spec, threads_of
from rollout.sampling.vllm_options import engine_environment


@pytest.mark.parametrize(("cpus", "threads"), [(0.25, 1), (1.0, 1), (1.9, 1), (2.0, 2), (8.0, 8)])
def test_a_process_computes_with_a_thread_for_each_whole_cpu(cpus: float, threads: int, tiny_model: Path) -> None:
    assert threads_of(cpus) == threads
    assert learner_environment(False, threads)["OMP_NUM_THREADS"] == str(threads)
    assert engine_environment(False, threads)["OMP_NUM_THREADS"] == str(threads)
    config = RunConfig.model_validate(
        {
            "model": {"path": str(tiny_model)},
            "data": {"task": {"type": "chain"}},
            "reward": {"functions": [{"type": "exact_match"}]},
            "cluster": {"cpus_per_learner_worker": cpus},
        }
    )
    assert learner_spec(config).num_threads == threads


def test_on_a_gpu_the_libraries_choose_their_threads() -> None:
    assert "OMP_NUM_THREADS" not in learner_environment(True, 4) | engine_environment(True, 4)
