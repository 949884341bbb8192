"""Creates the run's actors and ends them. The controller, which itself needs this module, is made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cluster.config.run_config import RunConfig
from cluster.run.placement import Bundle, Plan, plan, reserve
from cluster.run.reward_models import clients, reward_model_specs, serving_options

if TYPE_CHECKING:
    from actors.pools.reward_model_pool import RewardModelClient


@dataclass(frozen=True, slots=True)
class RolloutFactory:
    """Makes the actor of a rollout worker; its engine is not started. Can be sent to another process.

    Attributes:
        policy_path: what the engine loads first; the learner publishes its weights before anything is sampled.
        placement: the run's placement group.
        first_bundle: bundle of worker 0.
    """

    config: RunConfig
    policy_path: str
    tokenizer_path: str
    placement: Any
    first_bundle: int

    def __call__(self, index: int) -> Any:
        """The actor of worker ``index``."""
        from actors.workers.rollout_worker import RolloutWorker
        from rollout.sampling.vllm_engine import engine_environment

        config = self.config
        bundle = plan(config).rollout_bundles[index]
        on_gpu = "GPU" in bundle
        concurrency = 2 * config.rollout.max_concurrent_requests
        place = self.first_bundle + index
        actor = _placed(
            RolloutWorker, self.placement, place, bundle, engine_environment(on_gpu), max_concurrency=concurrency
        )
        return actor.remote(
            name=f"rollout-{index}",
            model_path=self.policy_path,
            tokenizer_path=self.tokenizer_path,
            config=config.rollout,
            run_seed=config.seed,
            on_gpu=on_gpu,
            trust_remote_code=config.model.trust_remote_code,
            transfer_backend="nccl" if uses_nccl(config) else None,
            task=config.data.task,
        )


@dataclass(frozen=True, slots=True)
class RewardFactory:
    """Makes reward service actors. Can be sent to another process.

    Attributes:
        scorers: what answers for each reward model, by its place in the configuration.
    """

    config: RunConfig
    scorers: Mapping[str, RewardModelClient]

    def __call__(self, index: int) -> Any:
        """One more actor; they are all alike."""
        import ray

        from rollout.scoring.service import RewardService

        config = self.config
        actor = ray.remote(RewardService).options(num_cpus=0, max_concurrency=1000)
        return actor.remote(config.reward, config.seed, config.training.samples_per_prompt, self.scorers)


@dataclass(slots=True)
class Workers:
    """Handles of the actors of one run, how to make more of them, and the placement group that holds them.

    Attributes:
        engines_started: whether the rollout workers can shut their engines down in order.
    """

    config: RunConfig
    learners: list[Any]
    rollouts: list[Any]
    rewards: list[Any]
    reward_models: list[Any]
    rollout_factory: RolloutFactory
    reward_factory: RewardFactory
    placement: Any
    engines_started: bool = False

    def replace_learners(self) -> None:
        """End all learner ranks and create new ones in their places."""
        _kill(self.learners)
        self.learners = _learners(self.config, self.placement)

    def stop(self, timeout_s: float) -> None:
        """Shut the engines down in order, then end every actor and give the resources back."""
        import ray
        from ray.util.placement_group import remove_placement_group

        if self.engines_started:
            with suppress(Exception):  # an engine that does not answer is ended with its actor
                ray.get([worker.stop.remote() for worker in self.rollouts], timeout=timeout_s)
        _kill([*self.rollouts, *self.learners, *self.rewards, *self.reward_models])
        with suppress(Exception):  # without a cluster there is nothing to give back
            remove_placement_group(self.placement)


def _kill(actors: list[Any]) -> None:
    import ray

    for actor in actors:
        with suppress(Exception):  # it may have died before
            ray.kill(actor)


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
    rollout_factory = RolloutFactory(config, policy_path, tokenizer_path, placement, len(demand.learner_bundles))
    models = _reward_models(config, placement, demand)
    reward_factory = RewardFactory(config, clients(config, models))
    return Workers(
        config,
        _learners(config, placement) if with_learners else [],
        [rollout_factory(index) for index in range(config.rollout.num_workers)],
        [reward_factory(index) for index in range(config.reward.num_workers)],
        models,
        rollout_factory,
        reward_factory,
        placement,
    )


def _learners(config: RunConfig, placement: Any) -> list[Any]:
    from actors.pools.checkpoint_saver import IO_GROUP
    from actors.workers.learner_worker import LearnerWorker

    return [
        _placed(LearnerWorker, placement, rank, bundle, learner_environment("GPU" in bundle), {IO_GROUP: 1}).remote()
        for rank, bundle in enumerate(plan(config).learner_bundles)
    ]


def _reward_models(config: RunConfig, placement: Any, demand: Plan) -> list[Any]:
    """Workers of all reward models, in the order of the configuration. Ray starts them again when they die."""
    from actors.workers.reward_model_worker import RewardModelWorker

    actors: list[Any] = []
    first = len(demand.bundles) - len(demand.reward_model_bundles)
    for spec in reward_model_specs(config):
        options = serving_options(config, spec.options, "cuda" if spec.options.num_gpus else "cpu")
        threads = str(max(1, int(spec.options.num_cpus)))
        environment = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": threads}
        for _ in range(spec.options.num_workers):
            place = first + len(actors)
            bundle = demand.bundles[place]
            actor = _placed(RewardModelWorker, placement, place, bundle, environment, max_restarts=-1)
            actors.append(actor.remote(options))
    return actors


async def collect_stacks(node: str, name: str, pid: int, folder: str) -> str:
    """Run :func:`actors.processes.stack_dump.collect` on another node; see :data:`actors.processes.stack_dump.Send`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from actors.processes import stack_dump

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(stack_dump.collect).options(num_cpus=0, scheduling_strategy=there)
    text: str = await task.remote(name, pid, folder)
    return text


def _placed(
    cls: type,
    placement: Any,
    bundle_index: int,
    bundle: Bundle,
    environment: dict[str, str],
    concurrency_groups: dict[str, int] | None = None,
    **options: Any,
) -> Any:
    """``cls`` as an actor class that lives in one bundle of the placement group."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return ray.remote(concurrency_groups=dict(concurrency_groups or {}))(cls).options(
        num_cpus=bundle["CPU"],
        num_gpus=bundle.get("GPU", 0.0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(placement, placement_group_bundle_index=bundle_index),
        runtime_env={"env_vars": environment},
        **options,
    )
