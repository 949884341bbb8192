"""A whole run in this process and event loop, with an engine that stays for the next one.

The controller, the pools, the learner with its DeepSpeed engines, the vLLM engine, the rewards and the records are
those of ``dvpo train``, put together by the same function. What differs is where they live: here nothing is sent
between processes, and nothing happens at the same time.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.pools.inline import InlineActor
from actors.pools.members import PoolObserver
from actors.workers.learner_worker import LearnerWorker
from actors.workers.rollout_worker import RolloutWorker
from cluster.config.components import resolve
from cluster.config.paths import absolute_model_path
from cluster.config.prompts import RenderedPrompts, RunPrompts, render_prompts
from cluster.config.run_config import RunConfig, dump_config
from cluster.run.assembly import assemble, make_pools, open_records
from cluster.run.start import write_config
from cluster.run.workers import learner_spec
from cluster.study.remembered import Answers, RememberingWorker
from rollout.config import RolloutConfig
from rollout.sampling.vllm_inline import InlineVllmEngine
from rollout.scoring.service import RewardService

LOCALHOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineStaff:
    """A :class:`cluster.run.assembly.Staff` of objects in this process."""

    rollouts: list[Any]
    rewards: list[Any]
    learners: list[Any]
    rollout_factory: Callable[[int], Any]
    reward_factory: Callable[[int], Any]
    rooms: None = None


def pooled(config: RolloutConfig) -> RolloutConfig:
    """The options of the one engine that does what ``num_workers`` engines of a run would do together."""
    return config.model_copy(
        update={
            "num_workers": 1,
            "min_workers": None,
            "max_workers": None,
            "max_concurrent_requests": config.num_workers * config.max_concurrent_requests,
            "kv_cache_mib": config.num_workers * config.kv_cache_mib,
        }
    )


class Workshop:
    """What stays between the runs of a process: the engine, rendered prompts, and greedy answers of starting weights.

    Args:
        config: of the first run; every other one has the same model and rollout section.
    """

    def __init__(self, config: RunConfig) -> None:
        path = absolute_model_path(config.model.path)
        self.engine = InlineVllmEngine(path, pooled(config.rollout), config.model.trust_remote_code)
        self.answers: Answers = {}
        self._rendered: dict[str, RenderedPrompts] = {}

    def prompts(self, config: RunConfig) -> RunPrompts:
        """The prompts of a run, rendered once for each task and reward."""
        reward = config.reward.model_copy(update={"noise": ()})  # which rows it can use does not depend on noise
        key = f"{config.data.model_dump_json()} {config.training.num_eval_prompts} {reward.model_dump_json()}"
        if key not in self._rendered:
            self._rendered[key] = render_prompts(config, absolute_model_path(config.model.path))
        return self._rendered[key].for_run(config)


async def run_inline(config: RunConfig, folder: Path, workshop: Workshop) -> dict[str, Any]:
    """Train as ``config`` says from the beginning to the end.

    Args:
        folder: of the run; empty, or not there.
        workshop: with an engine that has nothing to do. If this fails it may have something left to do.

    Returns:
        The path of the last checkpoint, and the accuracies before and after by split.

    Raises:
        Exception: whatever ended the run; the next one needs a new process.
    """
    write_config(folder, dump_config(resolve(config)))
    path = absolute_model_path(config.model.path)
    prompts = workshop.prompts(config)
    worker = RememberingWorker(
        workshop.answers,
        name="rollout-0",
        model_path=path,
        tokenizer_path=path,
        config=pooled(config.rollout),
        run_seed=config.seed,
        on_gpu=False,
        trust_remote_code=config.model.trust_remote_code,
        task=config.data.task,
        seeded=config.is_reproducible,
    )
    await worker.serve(workshop.engine)
    learner = LearnerWorker()
    learner.setup(0, 1, LOCALHOST, _free_port(), learner_spec(config))
    records = open_records(config=config, folder=folder, prompts=prompts, step=0, state=None)
    for remark in prompts.remarks:
        records.tell("data", 0, remark, "warning")
    staff = _staff(config, worker, learner)
    try:
        controller = assemble(
            config=config,
            folder=folder,
            fleet=staff,
            prompts=prompts,
            records=records,
            pools=make_pools(config, staff, PoolObserver()),
            step=0,
            state=None,
        )
        checkpoint = await controller.run()
    finally:
        records.ledger.close()
        for service in staff.rewards:
            await service.close.remote()
        learner.shutdown()
    return {
        "checkpoint": checkpoint,
        "step": controller.step,
        "initial_accuracy": controller.initial_accuracy,
        "final_accuracy": controller.final_accuracy,
    }


def _staff(config: RunConfig, worker: RolloutWorker, learner: LearnerWorker) -> InlineStaff:
    def reward(_: int) -> Any:
        return InlineActor(RewardService(config.reward, config.seed, config.training.samples_per_prompt))

    return InlineStaff(
        rollouts=[InlineActor(worker)],
        rewards=[reward(index) for index in range(config.reward.num_workers)],
        learners=[InlineActor(learner)],
        rollout_factory=_refuse_replacement,
        reward_factory=reward,
    )


def _refuse_replacement(index: int) -> Any:
    raise RuntimeError(f"rollout-{index} lives in the process of the study and cannot be replaced there")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        port: int = probe.getsockname()[1]
    return port
