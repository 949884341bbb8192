"""Creates the run's actors and ends them. ``ray.remote`` is applied here and nowhere else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from cluster.config import RunConfig
from cluster.placement import Bundle, Plan, plan, reserve


@dataclass(slots=True)
class Workers:
    """Handles of the actors of one run, and the placement group that holds them.

    Attributes:
        engines_started: whether the rollout workers can shut their engines down in order.
    """

    learners: list[Any]
    rollouts: list[Any]
    rewards: list[Any]
    placement: Any
    engines_started: bool = False

    def stop(self, timeout_s: float) -> None:
        """Shut the engines down in order, then end every actor and give the resources back."""
        import ray
        from ray.util.placement_group import remove_placement_group

        if self.engines_started:
            with suppress(Exception):  # an engine that does not answer is ended with its actor
                ray.get([worker.stop.remote() for worker in self.rollouts], timeout=timeout_s)
        for actor in [*self.rollouts, *self.learners, *self.rewards]:
            ray.kill(actor)
        remove_placement_group(self.placement)


def learner_environment(on_gpu: bool) -> dict[str, str]:
    """Environment variables of a learner rank, to be set before torch is imported there."""
    common = {"TOKENIZERS_PARALLELISM": "false"}
    return common if on_gpu else {**common, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


def uses_nccl(config: RunConfig) -> bool:
    """Whether weights go from GPU to GPU; see ``rollout.weight_sync``."""
    both_on_gpu = config.cluster.gpus_per_learner_worker > 0 and config.cluster.gpus_per_rollout_worker > 0
    return config.rollout.weight_sync == "nccl" or (config.rollout.weight_sync == "auto" and both_on_gpu)


def create_workers(config: RunConfig, policy_path: str, tokenizer_path: str, with_learners: bool = True) -> Workers:
    """Create all actors; nothing heavy is loaded yet.

    Args:
        policy_path: what the engines load first; the learner publishes its weights before anything is sampled.
        with_learners: False for evaluation, which needs none.

    Raises:
        UserError: the cluster is too small.
        TimeoutError: its resources did not become free in time.
    """
    demand = plan(config) if with_learners else replace(plan(config), learner_bundles=())
    placement = reserve(demand, config.cluster.start_timeout_s)
    return Workers(
        _learners(demand, placement),
        _rollouts(config, demand, placement, policy_path, tokenizer_path),
        _rewards(config),
        placement,
    )


def _learners(demand: Plan, placement: Any) -> list[Any]:
    from actors.learner_worker import LearnerWorker

    return [
        _placed(LearnerWorker, placement, rank, bundle, learner_environment("GPU" in bundle)).remote()
        for rank, bundle in enumerate(demand.learner_bundles)
    ]


def _rollouts(config: RunConfig, demand: Plan, placement: Any, policy_path: str, tokenizer_path: str) -> list[Any]:
    from actors.rollout_worker import RolloutWorker
    from rollout.vllm_engine import engine_environment

    first, concurrency = len(demand.learner_bundles), 2 * config.rollout.max_concurrent_requests
    handles = []
    for index, bundle in enumerate(demand.rollout_bundles):
        on_gpu = "GPU" in bundle
        environment = engine_environment(on_gpu)
        actor = _placed(RolloutWorker, placement, first + index, bundle, environment, max_concurrency=concurrency)
        handle = actor.remote(
            name=f"rollout-{index}",
            model_path=policy_path,
            tokenizer_path=tokenizer_path,
            config=config.rollout,
            run_seed=config.seed,
            on_gpu=on_gpu,
            trust_remote_code=config.model.trust_remote_code,
            transfer_backend="nccl" if uses_nccl(config) else None,
        )
        handles.append(handle)
    return handles


def _rewards(config: RunConfig) -> list[Any]:
    import ray

    from actors.reward_service import RewardService

    actor = ray.remote(RewardService).options(num_cpus=0, max_concurrency=1000)
    arguments = (config.reward, config.seed, config.training.samples_per_prompt)
    return [actor.remote(*arguments) for _ in range(config.reward.num_workers)]


def _placed(
    cls: type, placement: Any, bundle_index: int, bundle: Bundle, environment: dict[str, str], **options: Any
) -> Any:
    """``cls`` as an actor class that lives in one bundle of the placement group."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return ray.remote(cls).options(
        num_cpus=bundle["CPU"],
        num_gpus=bundle.get("GPU", 0.0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(placement, placement_group_bundle_index=bundle_index),
        runtime_env={"env_vars": environment},
        **options,
    )
