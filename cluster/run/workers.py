"""Creates the run's actors and ends them. The controller, which itself needs this module, is made elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util import remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from actors.pools.checkpoint_saver import IO_GROUP
from actors.pools.loss import end
from actors.pools.reward_model_pool import RewardModelClient
from actors.processes import stack_dump
from actors.workers.learner_worker import LearnerSpec, LearnerWorker
from actors.workers.reward_model_worker import RewardModelWorker
from actors.workers.reward_worker import RewardWorker
from actors.workers.rollout_worker import RolloutWorker
from cluster.config.object_store import uses_nccl
from cluster.config.paths import absolute_model_path
from cluster.config.run_config import RunConfig
from cluster.run.places.placement import Bundle, Plan, plan, rollout_bundle
from cluster.run.places.rooms import RolloutRooms
from cluster.run.places.waiting import learners_group, reserve
from cluster.run.reward_models import ServedModel, served_models, serving_options
from learner.config import learner_environment
from rollout.sampling.vllm_options import engine_environment


@dataclass(frozen=True, slots=True)
class RolloutFactory:
    """Makes the actor of a rollout worker; its engine is not started. Can be sent to another process.

    Attributes:
        policy_path: what the engine loads first; the learner publishes its weights before anything is sampled.
        rooms: where the workers are.
        bundle: resources of each worker.
    """

    config: RunConfig
    policy_path: str
    tokenizer_path: str
    rooms: RolloutRooms
    bundle: Bundle

    def __call__(self, index: int) -> Any:
        """The actor of worker ``index``, which has a room."""
        config, bundle = self.config, self.bundle
        on_gpu = "GPU" in bundle
        actor = placed(
            RolloutWorker,
            self.rooms.group(index),
            0,
            bundle,
            engine_environment(on_gpu, threads_of(bundle["CPU"])),
            max_concurrency=2 * config.rollout.max_concurrent_requests,
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
            seeded=config.is_reproducible,
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
        config = self.config
        actor = ray.remote(RewardWorker).options(num_cpus=0, max_concurrency=1000)
        return actor.remote(config.reward, config.seed, config.training.samples_per_prompt, self.scorers)


@dataclass(slots=True)
class Fleet:
    """All actors of one run but the controller: their handles, how to make more, and what holds their resources.

    Can be sent to another process, which is how the controller gets it.

    Attributes:
        models: reward models with the handles of their workers.
        placements: the placement groups of the learner ranks and of the reward models, None without any.
        learner_bundles: resources of each learner rank.
        engines_started: whether the rollout workers can shut their engines down in order.
    """

    rollouts: list[Any]
    rewards: list[Any]
    learners: list[Any]
    models: tuple[ServedModel, ...]
    rollout_factory: RolloutFactory
    reward_factory: RewardFactory
    placements: tuple[Any, Any]
    learner_bundles: tuple[Bundle, ...]
    engines_started: bool = False

    def others(self) -> dict[str, Any]:
        """Handles of those whom the controller works with but for rollout workers, by the names that messages use."""
        kinds = {"reward": self.rewards, "learner": self.learners}
        return {f"{kind}-{i}": handle for kind, handles in kinds.items() for i, handle in enumerate(handles)}

    @property
    def rooms(self) -> RolloutRooms:
        """Of the rollout workers."""
        return self.rollout_factory.rooms

    @property
    def groups(self) -> list[Any]:
        """All placement groups that this process knows of."""
        return [*filter(None, self.placements), *self.rooms.groups]

    def replace_learners(self) -> None:
        """End all learner ranks, give their room back, ask for room anew, and create new ones there."""
        for learner in self.learners:
            end(learner)
        former, others = self.placements
        remove_placement_group(former)
        self.placements = (learners_group(self.learner_bundles), others)
        self.learners = _learners(self.learner_bundles, self.placements[0])

    def stop(self, timeout_s: float) -> None:
        """Shut the engines down in order, then end every actor and give the resources back."""
        if self.engines_started:
            with suppress(Exception):  # an engine that does not answer is ended with its actor
                ray.get([worker.stop.remote() for worker in self.rollouts], timeout=timeout_s)
        served = [handle for model in self.models for handle in model.handles]
        for actor in (*self.rollouts, *self.learners, *self.rewards, *served):
            end(actor)
        for placement in filter(None, self.placements):
            with suppress(Exception):  # without a cluster there is nothing to give back
                remove_placement_group(placement)
        with suppress(Exception):
            self.rooms.release(all_of_them=True)


def threads_of(cpus: float) -> int:
    """Threads that a process computes with for the CPUs it asks for: at least one, and one for each whole CPU."""
    return max(1, int(cpus))


def learner_spec(config: RunConfig, lr_scale: float = 1.0) -> LearnerSpec:
    """What every learner rank of a run is built from; ``lr_scale`` is less than 1 after a roll-back."""
    return LearnerSpec(
        model=config.model.model_copy(update={"path": absolute_model_path(config.model.path)}),
        learner=config.learner,
        algorithm=config.algorithm.name,
        algorithm_options=config.algorithm.options,
        num_updates=config.training.num_steps,
        temperature=config.rollout.sampling.temperature,
        seed=config.seed,
        device="cuda" if config.cluster.gpus_per_learner_worker > 0 else "cpu",
        num_threads=threads_of(config.cluster.cpus_per_learner_worker),
        timeout_s=config.cluster.step_timeout_s,
        lr_scale=lr_scale,
        kl_to_start_every=config.logging.kl_to_start_every,
        limits=config.guards.update_limits(),
        traces=config.logging.trace_limits(),
    )


def create_fleet(
    config: RunConfig,
    policy_path: str,
    tokenizer_path: str,
    with_learners: bool = True,
    tell: Callable[[str], None] = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> Fleet:
    """Create all actors; nothing heavy is loaded yet.

    Args:
        policy_path: what the engines load first; the learner publishes its weights before anything is sampled.
        with_learners: False for evaluation, which needs none.
        tell, check: see :func:`cluster.run.places.waiting.wait_for_room`.

    Raises:
        UserError: the cluster is too small, or an option of a reward model is wrong.
        TimeoutError: its resources did not become free in time.
    """
    models = served_models(config)
    demand = plan(config, models)
    if not with_learners:
        demand = replace(demand, learner_bundles=())
    rooms = RolloutRooms(rollout_bundle(config))
    wanted = config.rollout.num_workers
    learner_group, served_group, num_rollouts = reserve(
        demand, rooms, wanted, config.cluster.start_timeout_s, tell, check
    )
    if num_rollouts < wanted:
        tell(f"{num_rollouts} of {wanted} rollout workers have room; the others come when a host has some")
    rollout_factory = RolloutFactory(
        config=config,
        policy_path=policy_path,
        tokenizer_path=tokenizer_path,
        rooms=rooms,
        bundle=rollout_bundle(config),
    )
    served = _serve(config, models, served_group, demand)
    reward_factory = RewardFactory(config, {model.place: RewardModelClient(model.handles) for model in served})
    return Fleet(
        rollouts=[rollout_factory(index) for index in range(num_rollouts)],
        rewards=[reward_factory(index) for index in range(config.reward.num_workers)],
        learners=_learners(demand.learner_bundles, learner_group),
        models=tuple(served),
        rollout_factory=rollout_factory,
        reward_factory=reward_factory,
        placements=(learner_group, served_group),
        learner_bundles=demand.learner_bundles,
    )


def _learners(bundles: Sequence[Bundle], placement: Any) -> list[Any]:
    environments = [learner_environment("GPU" in bundle, threads_of(bundle["CPU"])) for bundle in bundles]
    return [
        placed(LearnerWorker, placement, rank, bundle, environment, {IO_GROUP: 1}).remote()
        for rank, (bundle, environment) in enumerate(zip(bundles, environments, strict=True))
    ]


def _serve(config: RunConfig, models: Sequence[ServedModel], placement: Any, demand: Plan) -> list[ServedModel]:
    """The models with their workers. Ray starts them again when they die."""
    places = iter(enumerate(demand.reward_model_bundles))
    served = []
    for model in models:
        options = serving_options(config, model.options, "cuda" if model.options.num_gpus else "cpu")
        threads = str(threads_of(model.options.num_cpus))
        environment = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": threads}
        handles = []
        for _ in range(model.options.num_workers):
            place, bundle = next(places)
            actor = placed(RewardModelWorker, placement, place, bundle, environment, max_restarts=-1)
            handles.append(actor.remote(options))
        served.append(replace(model, handles=tuple(handles)))
    return served


async def collect_stacks(node: str, name: str, pid: int, folder: str) -> str:
    """Run :func:`actors.processes.stack_dump.collect` on another node; see :data:`actors.processes.stack_dump.Send`."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(stack_dump.collect).options(num_cpus=0, scheduling_strategy=there)
    text: str = await task.remote(name, pid, folder)
    return text


def placed(
    cls: type,
    placement: Any,
    bundle_index: int,
    bundle: Bundle,
    environment: dict[str, str],
    concurrency_groups: dict[str, int] | None = None,
    **options: Any,
) -> Any:
    """``cls`` as an actor class that lives in one bundle of the placement group."""
    return ray.remote(concurrency_groups=dict(concurrency_groups or {}))(cls).options(
        num_cpus=bundle["CPU"],
        num_gpus=bundle.get("GPU", 0.0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(placement, placement_group_bundle_index=bundle_index),
        runtime_env={"env_vars": environment},
        **options,
    )
