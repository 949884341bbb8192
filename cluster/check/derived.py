"""What follows from a configuration: the numbers a user did not write but should see before a run starts. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from cluster.config.run_config import RunConfig
from cluster.run.places.placement import plan as placement_plan
from cluster.run.reward_models import served_models
from rollout.config import RolloutConfig


class UpdateShape(Protocol):
    """The options of an algorithm that shape one update (``learner.algorithms.base.AlgorithmConfig`` has them)."""

    @property
    def num_epochs(self) -> int:
        """Passes over each batch."""
        ...

    @property
    def num_minibatches(self) -> int:
        """Optimiser steps per pass."""
        ...


@dataclass(frozen=True, slots=True)
class Derived:
    """Derived quantities of a run.

    Attributes:
        trajectories_per_step: prompts per step times samples per prompt.
        trajectories_per_minibatch: trajectories of one optimiser step over all ranks.
        optimizer_steps_per_step: epochs times mini-batches.
        longest_tokens: prompt and response of the longest possible trajectory, or its whole conversation.
        micro_batches_per_step: forward and backward passes a rank needs for one epoch at most, if all trajectories
            were of the longest kind.
        max_trajectories_in_flight: trajectories asked for and not yet trained on, at most.
    """

    trajectories_per_step: int
    trajectories_per_minibatch: int
    optimizer_steps_per_step: int
    longest_tokens: int
    micro_batches_per_step: int
    max_trajectories_in_flight: int


def derive(config: RunConfig, update: UpdateShape) -> Derived:
    """The derived quantities of ``config``; ``update`` is how its algorithm shapes an update."""
    rollout, learner, training = config.rollout, config.learner, config.training
    per_step = training.trajectories_per_step
    longest = rollout.longest_tokens
    # Rounded up twice: a mini-batch is dealt out to the ranks, then each rank packs what it got.
    rows_per_minibatch = math.ceil(per_step / update.num_minibatches)
    rows_per_rank = math.ceil(rows_per_minibatch / learner.num_workers)
    # Rows are padded to the longest among them, so in the worst case all are of the longest kind.
    rows_per_micro_batch = max(1, learner.micro_batch_tokens // longest)
    return Derived(
        trajectories_per_step=per_step,
        trajectories_per_minibatch=rows_per_minibatch,
        optimizer_steps_per_step=update.num_epochs * update.num_minibatches,
        longest_tokens=longest,
        micro_batches_per_step=update.num_minibatches * math.ceil(rows_per_rank / rows_per_micro_batch),
        # The batch being filled, and one more for each update that a trajectory may be behind.
        max_trajectories_in_flight=per_step * (1 + training.max_staleness),
    )


def _answers(config: RunConfig) -> str:
    """What each prompt of an evaluation is asked for."""
    settings = [f"{setting.samples} samples at {setting.label}" for setting in config.evaluation.sampled]
    return ", ".join(["a greedy answer each", *settings])


def plan_lines(config: RunConfig, update: UpdateShape) -> list[str]:
    """The plan in words, one line a topic, shown before the start."""
    derived, served = derive(config, update), served_models(config)
    demand, models = placement_plan(config, served), [model.options for model in served]
    rollout, learner, training = config.rollout, config.learner, config.training
    evaluated = "before and after"
    if training.eval_every_steps:
        evaluated = f"every {_plural(training.eval_every_steps, 'step')}"
    saved = "at the end"
    if training.checkpoint_every_steps:
        saved = f"every {_plural(training.checkpoint_every_steps, 'step')} and at the end"
    return [
        f"run {config.name}: {training.num_steps} steps = {_count(training.num_steps * derived.trajectories_per_step)} "
        f"trajectories, seed {config.seed}, in {config.run_dir}",
        f"one step = {training.prompts_per_step} prompts x {training.samples_per_prompt} = "
        f"{derived.trajectories_per_step} trajectories, {_plural(derived.optimizer_steps_per_step, 'optimiser step')} "
        f"({_plural(update.num_epochs, 'epoch')} x {_plural(update.num_minibatches, 'mini-batch', 'mini-batches')} of "
        f"{derived.trajectories_per_minibatch}), at most "
        f"{_plural(derived.micro_batches_per_step, 'micro-batch', 'micro-batches')} a rank and epoch",
        f"{_longest(config)} = {derived.longest_tokens} tokens; a micro-batch holds {learner.micro_batch_tokens} "
        "padded tokens",
        f"sampling: {_plural(rollout.num_workers, 'rollout worker')}{_range(rollout)} x "
        f"{rollout.max_concurrent_requests} requests at a time; up to {derived.max_trajectories_in_flight} "
        f"trajectories ahead of training (max_staleness {training.max_staleness}); "
        + ("each response has its own random stream" if config.is_reproducible else "one random stream an engine"),
        f"learning: {_plural(learner.num_workers, 'rank')}, ZeRO {learner.zero_stage}, learning rate "
        f"{learner.policy_lr:g} policy, {learner.critic_lr:g} critic",
        f"evaluation {evaluated} on up to {training.num_eval_prompts} prompts a split, {_answers(config)}; checkpoint "
        f"{saved}, newest {training.keep_checkpoints} kept",
        *(
            f"reward model {model.path}: {_plural(model.num_workers, 'worker')} x batches of up to {model.batch_size}, "
            f"conversations of up to {model.max_tokens} tokens, output {model.output}"
            for model in models
        ),
        f"resources: {demand.total('CPU'):g} CPUs, {demand.total('GPU'):g} GPUs, "
        + (f"Ray at {config.cluster.address}" if config.cluster.address else "a private Ray on this machine"),
    ]


def _range(rollout: RolloutConfig) -> str:
    """Between which numbers there may be others, if they may."""
    fewest, most = rollout.fewest_workers, rollout.most_workers
    return f" ({fewest} to {most} as there is room)" if fewest < most else ""


def _longest(config: RunConfig) -> str:
    """What the longest trajectory consists of."""
    rollout = config.rollout
    prompt, response = f"{rollout.max_prompt_tokens} prompt", f"{rollout.sampling.max_response_tokens} response"
    if rollout.max_conversation_tokens is None:
        return f"longest trajectory = {prompt} + {response}"
    return f"longest conversation ({prompt}, {response} a turn, {_plural(rollout.max_turns, 'turn')} at most)"


def _count(number: int) -> str:
    """``7,680``."""
    return f"{number:,}"


def _plural(number: int, one: str, many: str = "") -> str:
    """``1 step``, ``2 steps``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
