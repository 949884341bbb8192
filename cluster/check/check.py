"""``dvpo check``: everything a run needs, looked at before any resource is taken.

Every check runs even if another one fails, so that the user sees all mistakes at once. Nothing is started: no Ray, no
engine; of the model only its configuration and tokenizer are loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from actors.guards.guards import further_guards
from actors.recording.sinks import further_sinks
from cluster.check.demand import compare, demand_of, model_sizes
from cluster.check.derived import derive, plan_lines
from cluster.check.environment import check_environment
from cluster.check.joined import joined_cluster_warnings
from cluster.check.machine import Machine, inspect_machine, machine_errors, machine_warnings
from cluster.check.memory_plan.plan import Gpus, plan_run
from cluster.check.model import adapter_warnings, check_critic_body, check_deepspeed, check_engine_args, check_model
from cluster.config.components import build_algorithm, build_noise, build_noise_chain, build_task, reward_specs
from cluster.config.model_folder import foreign_code
from cluster.config.processes.joined_cluster import joined_address
from cluster.config.prompts import require_categories, settle_rewards
from cluster.config.run_config import RunConfig
from cluster.run.reward_models import served_models
from learner.config import check_compatible
from rollout.component import UserError, user_code
from rollout.component.mistakes import Conflict, MachineTooSmall, NoCheckpoint, NoRows, NotWritable, OutOfRange
from rollout.data.prompts import all_splits, questions, render_split
from rollout.rewards.function import build_reward
from rollout.tasks.base import Task

if TYPE_CHECKING:  # which loads torch
    from learner.algorithms.base import Algorithm

MAX_RENDERED_PROMPTS = 20_000
"""Prompts of one split whose length is checked; more would make the check slow."""

Result = TypeVar("Result")


@dataclass(slots=True)
class CheckReport:
    """What was found.

    Attributes:
        errors: what must be put right; each starts with the key it is about.
        warnings: what will work but probably not as wished.
        remarks: what is configured and changes nothing of the training.
        plan: the derived quantities in words; empty if the algorithm is wrong.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)

    def attempt(self, function: Callable[..., Result], *arguments: Any) -> Result | None:
        """Call ``function``; a :class:`UserError` is noted and None returned."""
        try:
            return function(*arguments)
        except UserError as error:
            # Two checks may stumble over the same mistake, such as one model in two places.
            if str(error) not in self.errors:
                self.errors.append(str(error))
            return None

    def too_small(self, errors: Iterable[str]) -> None:
        """Note what the run needs and the machine does not have."""
        self.errors += [str(MachineTooSmall(error)) for error in errors]


def check_run(
    config: RunConfig, resume: str | None = None, overwrite: bool = False, machine: Machine | None = None
) -> CheckReport:
    """Check everything that ``config`` needs on this machine.

    Args:
        resume: ``auto``, the folder of a checkpoint, or None for a new run.
        overwrite: an earlier run of the same name may be deleted.
        machine: what to compare the demand with; this machine by default.
    """
    from cluster.reward_model.check import check_reward_model, reward_model_warnings  # loads torch

    report = CheckReport()
    task = report.attempt(build_task, config)
    rewards = [report.attempt(build_reward, spec, place) for place, spec in reward_specs(config).items()]
    report.attempt(further_guards, config.guards.further)
    report.attempt(further_sinks, config.logging.sinks)
    models = report.attempt(served_models, config)
    for model in models or ():
        report.attempt(check_reward_model, model)
        report.warnings += reward_model_warnings(config, model)
    if None not in [report.attempt(build_noise, config, index) for index in range(len(config.reward.noise))]:
        report.attempt(build_noise_chain, config)
    algorithm = report.attempt(build_algorithm, config)
    report.attempt(check_compatible, config.model, config.learner)
    report.attempt(check_deepspeed, config)
    tokenizer = report.attempt(check_model, config)
    if tokenizer is not None:
        report.attempt(check_engine_args, config)
    if algorithm is not None:
        report.attempt(check_update_shape, config, algorithm)
        report.attempt(check_rates, config, algorithm)
        report.plan = [] if models is None else plan_lines(config, algorithm.config)
        report.warnings += algorithm_warnings(config, algorithm)
        report.remarks = algorithm.remarks()
        if algorithm.needs_critic:
            report.attempt(check_critic_body, config)
    if task is not None:
        # Before the prompts are rendered, as in the run: the same rows are left out then.
        if None not in rewards:
            report.warnings += report.attempt(settle_rewards, config, task) or []
        sizes = report.attempt(check_data, config, task, tokenizer)
        report.warnings += data_warnings(config, sizes or {})
        report.warnings += (report.attempt(_remarks, config, task) or []) if sizes else []
        # It is the environment of the first training prompt, so the data has to be readable.
        if sizes:
            report.warnings += report.attempt(check_environment, config, task, tokenizer) or []
    report.attempt(check_run_folder, config, resume, overwrite)
    report.warnings += joined_cluster_warnings(config)
    report.warnings += [*filter(None, [foreign_code(config.model)]), *adapter_warnings(config)]
    is_private = joined_address(config) is None
    found = (machine or inspect_machine(config.run_dir)) if is_private and models is not None else None
    if found is not None:
        report.too_small(machine_errors(config, found))
        report.warnings += machine_warnings(config, found)
    if algorithm is not None and tokenizer is not None:
        if found is not None:
            check_demand(config, algorithm, found, report)
        report.attempt(check_gpu_memory, config, algorithm, found, report)
    return report


def check_gpu_memory(config: RunConfig, algorithm: Algorithm, machine: Machine | None, report: CheckReport) -> None:
    """Plan the memory of GPUs, of a run that uses any; refuses it where this machine's are known to be too small.

    Raises:
        UserError: a model's config.json cannot be used.
    """
    if config.cluster.gpus_per_learner_worker + config.cluster.gpus_per_rollout_worker == 0:
        return
    sizes = () if machine is None else machine.gpu_mib
    gpus = Gpus(nodes=1, per_node=len(sizes), num_bytes=min(sizes) << 20) if sizes else None
    planned = plan_run(config, algorithm, gpus)
    report.plan += planned.lines()
    report.too_small(planned.problems())


def check_demand(config: RunConfig, algorithm: Algorithm, machine: Machine, report: CheckReport) -> None:
    """Compare the memory, shared memory and disk that the run needs with what there is."""
    sizes = report.attempt(model_sizes, config, algorithm.needs_critic, algorithm.needs_reference)
    if sizes is None:
        return
    found = compare(config, demand_of(config, sizes), machine)
    report.too_small(found.errors)
    report.warnings += found.warnings
    report.plan += found.plan


def check_update_shape(config: RunConfig, algorithm: Algorithm) -> None:
    """Every rank needs a trajectory in every mini-batch, and methods that compare samples need several.

    Raises:
        UserError: there are too few trajectories or samples.
    """
    samples = config.training.samples_per_prompt
    for index, correction in enumerate(algorithm.corrections):
        if samples < correction.min_samples_per_prompt:
            raise OutOfRange(
                f"training.samples_per_prompt: algorithm.reward_correction.{index} compares the samples of one prompt, "
                f"so it needs at least {correction.min_samples_per_prompt} (got {samples})"
            )
    if samples < algorithm.min_samples_per_prompt:
        raise OutOfRange(
            f"training.samples_per_prompt: {config.algorithm.name} compares the samples of one prompt, so it needs at "
            f"least {algorithm.min_samples_per_prompt} (got {samples})"
        )
    prompts = config.training.prompts_per_step
    if prompts < algorithm.min_prompts:
        raise OutOfRange(
            f"training.prompts_per_step: {config.algorithm.name} compares prompts with each other, so it needs at "
            f"least {algorithm.min_prompts} in a step (got {prompts})"
        )
    derived, options = derive(config, algorithm.config), algorithm.config
    needed = options.num_minibatches * config.learner.num_workers
    if derived.trajectories_per_step < needed:
        raise Conflict(
            f"algorithm.num_minibatches: {options.num_minibatches} mini-batches on {config.learner.num_workers} ranks "
            f"need at least {needed} trajectories a step; there are {derived.trajectories_per_step} "
            "(training.prompts_per_step x training.samples_per_prompt)"
        )


def check_rates(config: RunConfig, algorithm: Algorithm) -> None:
    """Error rates can be estimated only where true scores are known, and gold labels are for who reads them.

    Raises:
        UserError: they are to be, and none is; or labels are asked for that nothing uses.
    """
    if config.reward.gold_labels is not None and not algorithm.reads_gold:
        raise Conflict(
            f"reward.gold_labels: {config.algorithm.name} makes no use of gold labels; add 'evidence' or "
            "'gold_only' to algorithm.reward_correction, or leave this out"
        )
    labels = config.reward.gold_labels
    if labels and labels.choice == "disputed" and not config.reward.disputed_share(config.training.samples_per_prompt):
        raise Conflict(
            "reward.gold_labels.choice: 'disputed' asks where a prompt's samples give different answers, which needs "
            "training.samples_per_prompt above 1 and a reward.answer_key other than 'none'; or set it to 'random'"
        )
    if config.reward.gold_labels is None and any(correction.needs_gold for correction in algorithm.corrections):
        raise Conflict(
            "reward.gold_labels: missing, and algorithm.reward_correction trains on trajectories with a gold label "
            "only; give it, with a share"
        )
    if config.reward.answer_key == "none" and any(correction.needs_answers for correction in algorithm.corrections):
        raise Conflict(
            "reward.answer_key: 'none', and algorithm.reward_correction compares the answers of a prompt's samples; "
            "leave it out, or give what makes two responses one answer"
        )
    if algorithm.takes_estimated_rates and config.reward.compared_share == 0.0:
        raise Conflict(
            "algorithm: 'estimated: true' needs trajectories whose true score is known: give reward.gold, and "
            "reward.gold_share above 0"
        )


def algorithm_warnings(config: RunConfig, algorithm: Algorithm) -> list[str]:
    """Options that have no effect with this algorithm."""
    warnings = []
    if not algorithm.needs_critic and config.model.critic_path is not None:
        warnings.append(f"model.critic_path: {config.algorithm.name} has no critic; this has no effect")
    if not algorithm.needs_critic and config.learner.critic_warmup_steps > 0:
        warnings.append(f"learner.critic_warmup_steps: {config.algorithm.name} has no critic; this has no effect")
    most = config.rollout.sampling.max_response_tokens
    for index, correction in enumerate(algorithm.corrections):
        if config.rollout.max_conversation_tokens is None and correction.acts_beyond_tokens >= most:
            warnings.append(
                f"algorithm.reward_correction.{index}: it does nothing to responses of at most "
                f"{correction.acts_beyond_tokens} tokens, and rollout.sampling.max_response_tokens is {most}; "
                "this has no effect"
            )
    return warnings


def _remarks(config: RunConfig, task: Task) -> list[str]:
    return user_code("data.task", f"by remarks of {config.data.task.type!r}", task.remarks)


def check_data(config: RunConfig, task: Task, tokenizer: Any | None) -> dict[str, int]:
    """Read all splits and measure their prompts; returns the number of questions by split.

    Raises:
        UserError: data cannot be read, a split is empty, a prompt is too long, or evaluation.category is no column.
    """
    sizes, name = {}, config.data.task.type
    for split in all_splits(task, name):
        if not questions(task, split, name):
            raise NoRows(f"data.task: split {split!r} has no questions")
        if tokenizer is not None:
            render_split(tokenizer, task, split, config.rollout.max_prompt_tokens, MAX_RENDERED_PROMPTS, name)
        if split != "train":
            require_categories(config, split, questions(task, split, name))
        sizes[split] = len(questions(task, split, name))
    return sizes


def data_warnings(config: RunConfig, sizes: dict[str, int]) -> list[str]:
    """Data that is smaller than the run assumes."""
    wanted, found = config.training.prompts_per_step, sizes.get("train", 0)
    if 0 < found < wanted:
        return [f"training.prompts_per_step: {wanted} is more than the {found} training prompts; a step repeats some"]
    return []


def check_run_folder(config: RunConfig, resume: str | None, overwrite: bool) -> None:
    """The run's folder must be writable, and must not hold another run unless that is meant.

    Raises:
        UserError: it is not.
    """
    folder = config.run_dir
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotWritable(f"output_dir: {str(existing)!r} is a file, so no folder {str(folder)!r} can be made")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise NotWritable(f"output_dir: folder {str(existing)!r} is not writable")
    if resume not in (None, "auto") and not Path(str(resume)).is_dir():
        raise NoCheckpoint(f"--resume: no such checkpoint folder: {resume!r}; 'auto' takes the newest of {folder}")
    if resume is None and not overwrite and (folder / "metrics.jsonl").exists():
        raise NoCheckpoint(
            f"name: {str(folder)!r} already holds a run; go on with it (--resume), delete it (--overwrite), or give "
            "this one another name (--set name=...)"
        )
