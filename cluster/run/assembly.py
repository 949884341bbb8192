"""Puts a controller together: from a configuration, the run's actors, its prompts, and what it writes down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from actors.guards.guards import Guards
from actors.guards.trust import RewardTrust
from actors.ledger.errors import LedgerError
from actors.ledger.fence import Fence
from actors.ledger.ledger import Ledger
from actors.loop.activity import ActivityClock
from actors.loop.controller import Controller
from actors.loop.evaluation import EvaluationPlan
from actors.loop.generation import FailureLimits, Generation
from actors.loop.gold_labels import DisputedLabels
from actors.loop.group_buffer import GroupBuffer
from actors.loop.pseudo_labels import PseudoLabels
from actors.loop.records import Records
from actors.loop.sampling_budget import SamplingBudget
from actors.meters import make_meters
from actors.pools.learner_ranks import LearnerRanks
from actors.pools.members import PoolObserver, Replacing, Rooms
from actors.pools.reward_pool import RewardPool
from actors.pools.rollout_pool import RolloutPool
from actors.pools.suspects import Suspects
from actors.pools.weight_sync import NcclRoute, ObjectStoreRoute, WeightSync
from actors.recording.disk_space import DiskSpace
from actors.recording.event_log import EventLog
from actors.recording.journal import Journal
from actors.recording.run_status import RunStatus
from actors.recording.sinks import JsonlSink, Sink, TensorBoardSink, further_sinks
from actors.recording.tell import teller
from actors.recording.trajectory_log import TrajectoryLog
from cluster.config.object_store import uses_nccl
from cluster.config.prompts import RunPrompts
from cluster.config.run_config import RunConfig
from learner.storage.disk_full import is_disk_full
from rollout.component.mistakes import DiskIsFull
from rollout.data.prompt_source import PromptSource
from rollout.sampling.weight_check import Canary, canary_tolerance

LEDGER = "ledger.sqlite"


class Staff(Protocol):
    """Handles of those whom a controller works with, and how to make more of them: actors, or objects here."""

    @property
    def rollouts(self) -> list[Any]:
        """Rollout workers."""

    @property
    def rewards(self) -> list[Any]:
        """Reward service actors."""

    @property
    def learners(self) -> list[Any]:
        """Learner ranks."""

    @property
    def rollout_factory(self) -> Callable[[int], Any]:
        """Makes the rollout worker of an index."""

    @property
    def reward_factory(self) -> Callable[[int], Any]:
        """Makes the reward service of an index."""

    @property
    def rooms(self) -> Rooms | None:
        """Where the rollout workers are; None if that needs no looking for."""


def open_records(
    *, config: RunConfig, folder: Path, prompts: RunPrompts, step: int, state: dict[str, Any] | None
) -> Records:
    """Open everything that a run writes; what earlier attempts wrote of later steps is undone.

    Args:
        folder: the run's.
        prompts: of the run; the ledger is of so many, and the log of trajectories says tokens as they do.
        step: updates already done, by the checkpoint to go on from.
        state: the controller's part of that checkpoint, or None without one.

    Raises:
        UserError: the disk is full.
        LedgerError: anything else is wrong with the ledger.
    """
    is_new = not (folder / LEDGER).exists()
    ledger = _open_ledger(folder / LEDGER, len(prompts.training), config, step)  # whoever had it writes no more
    journal, status = Journal(), RunStatus(folder / "status.json", may_write=ledger.fence.is_intact)
    status.step = step
    meters = make_meters(config.name, config.rollout.fewest_workers)
    tell = teller(journal, EventLog(folder / "events.jsonl"), meters)
    # Metrics of later steps are removed; without a checkpoint those of all steps that an earlier attempt has written.
    last_valid_step = None if is_new else step if state else -1
    logging = config.logging
    return Records(
        ledger=ledger,
        journal=journal,
        tell=tell,
        status=status,
        sinks=[*_sinks(config, folder, last_valid_step), meters],
        meters=meters,
        trajectory_log=TrajectoryLog(
            folder / "trajectories",
            logging.trajectory_samples_per_step,
            logging.keep_trajectory_files,
            logging.token_trace_kib * 1024,
            prompts.spell,
        ),
        disk=DiskSpace(
            config.recovery.disk_full_timeout_s,
            lambda text: tell("disk", status.step, text, "warning"),
            status.progress,
        ),
    )


def assemble(
    *,
    config: RunConfig,
    folder: Path,
    fleet: Staff,
    prompts: RunPrompts,
    records: Records,
    pools: tuple[RolloutPool, RewardPool],
    step: int,
    state: dict[str, Any] | None,
) -> Controller:
    """The controller of the run in ``folder``.

    Args:
        fleet: the actors that it works with.
        pools: of :func:`make_pools`, over these.
        step, state: of the checkpoint to go on from: updates done, and the controller's part, None without one.
    """
    training, kept = config.training, state or {}
    pool, rewards = pools
    learner = _learner_ranks(config, folder, fleet, records.ledger.fence)
    clock = ActivityClock()
    buffer = GroupBuffer(training.prompts_per_step, training.max_staleness, training.num_steps, step)
    return Controller(
        config=training,
        step_timeout_s=config.cluster.step_timeout_s,
        generation=Generation(
            source=prompts.training,
            samples_per_prompt=training.samples_per_prompt,
            limits=_failure_limits(config),
            buffer=buffer,
            pool=pool,
            rewards=rewards,
            clock=clock,
            records=records,
            run_seed=config.seed,
            gold_share=config.reward.compared_share,
            labels=_pseudo_labels(config),
            partial_groups=training.partial_groups,
            budget=_sampling_budget(config, buffer),
        ),
        buffer=buffer,
        clock=clock,
        pool=pool,
        rewards=rewards,
        learner=learner,
        sync=_weight_sync(config, learner, pool, prompts.training),
        records=records,
        guards=Guards(config.guards, kept.get("guards")),
        trust=RewardTrust(config.trust, config.reward.compared_share, config.seed, kept.get("trust")),
        eval_prompts=prompts.held_out,
        eval_plan=EvaluationPlan(config.evaluation, config.rollout.sampling),
        gold_labels=_gold_labels(config, rewards, kept.get("gold_labels")),
        state=state,
    )


def make_pools(config: RunConfig, fleet: Staff, observer: PoolObserver) -> tuple[RolloutPool, RewardPool]:
    """Pools of those who sample and of those who score, which may outlive a controller.

    Args:
        observer: told what happens to them.
    """
    return _rollout_pool(config, fleet, observer), _reward_pool(config, fleet, observer)


def _sampling_budget(config: RunConfig, buffer: GroupBuffer) -> SamplingBudget | None:
    options, most = config.training.sampling_budget, config.training.samples_per_prompt
    return None if options is None else SamplingBudget(options, most, buffer.may_admit)


def _rollout_pool(config: RunConfig, fleet: Staff, observer: PoolObserver) -> RolloutPool:
    return RolloutPool(
        workers=fleet.rollouts,
        max_requests_per_worker=config.rollout.max_concurrent_requests,
        request_timeout_s=config.recovery.request_timeout_s,
        replacing=Replacing(
            fleet.rollout_factory, config.cluster.start_timeout_s, config.recovery.max_worker_losses, fleet.rooms
        ),
        suspects=Suspects(config.recovery.max_quarantined_prompts),
        observer=observer,
    )


def _reward_pool(config: RunConfig, fleet: Staff, observer: PoolObserver) -> RewardPool:
    return RewardPool(
        workers=fleet.rewards,
        create=fleet.reward_factory,
        timeout_s=config.reward.deadline_s,
        error_reward=config.reward.error_reward,
        max_requests_per_worker=config.reward.max_concurrent_requests,
        observer=observer,
        recovery=config.recovery,
    )


def _learner_ranks(config: RunConfig, folder: Path, fleet: Staff, fence: Fence) -> LearnerRanks:
    return LearnerRanks(
        workers=fleet.learners,
        checkpoints=folder / "checkpoints",
        keep_checkpoints=config.training.keep_checkpoints,
        critic_warmup_steps=config.learner.critic_warmup_steps,
        timeout_s=config.cluster.step_timeout_s,
        guard=fence.held,
    )


def _failure_limits(config: RunConfig) -> FailureLimits:
    per_step = config.training.trajectories_per_step
    return FailureLimits(
        errors=config.reward.max_error_frac * per_step,
        abstentions=config.reward.max_abstain_frac * per_step,
        per_step=per_step,
    )


def _pseudo_labels(config: RunConfig) -> PseudoLabels | None:
    options = config.reward.pseudo_labels
    return PseudoLabels(options, config.seed) if options is not None else None


def _gold_labels(config: RunConfig, rewards: RewardPool, state: dict[str, Any] | None) -> DisputedLabels | None:
    options = config.reward.gold_labels
    if options is None or not config.reward.disputed_share(config.training.samples_per_prompt):
        return None
    return DisputedLabels(options, rewards, state)


def _weight_sync(config: RunConfig, learner: LearnerRanks, pool: RolloutPool, source: PromptSource) -> WeightSync:
    """The route of weights; its canary is the first training prompt."""
    canary = None
    if config.rollout.verify_weights:
        fixed, dtypes = config.rollout.canary_tolerance, (config.rollout.dtype, config.model.dtype)
        token_ids = source.at(0)[1].token_ids
        learns = fixed is None and set(dtypes) != {"float32"}
        canary = Canary(token_ids if len(token_ids) > 1 else token_ids * 2, fixed or canary_tolerance(*dtypes), learns)
    timeout_s = config.cluster.step_timeout_s
    if uses_nccl(config):
        return NcclRoute(learner, pool, config.rollout.tensor_parallel_size, canary, timeout_s)
    return ObjectStoreRoute(learner, pool, canary, timeout_s)


def _open_ledger(path: Path, num_prompts: int, config: RunConfig, step: int) -> Ledger:
    """The run's ledger, as it was when ``step`` updates had been done."""
    is_new = step == 0 and not path.exists()  # there is nothing to go back from
    try:
        ledger = Ledger(path, num_prompts=num_prompts, samples_per_prompt=config.training.samples_per_prompt)
        if not is_new:
            ledger.rollback(step)
    except LedgerError as error:
        if not is_disk_full(error):
            raise
        raise DiskIsFull(
            f"the disk is full, the ledger cannot be opened: {error}. Make space, then --resume"
        ) from error
    return ledger


def _sinks(config: RunConfig, folder: Path, last_valid_step: int | None) -> Sequence[Sink]:
    """Writers of metrics; those of later steps than ``last_valid_step`` are removed, -1 for all of them."""
    sinks: list[Sink] = [JsonlSink(folder / "metrics.jsonl", last_valid_step)]
    if config.logging.tensorboard:
        sinks.append(TensorBoardSink(folder / "tensorboard", last_valid_step))
    for sink in further_sinks(config.logging.sinks):
        sink.open(folder, last_valid_step)
        sinks.append(sink)
    return sinks
