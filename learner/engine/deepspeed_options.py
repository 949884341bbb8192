"""DeepSpeed's configuration: what a run sets itself, and what a user may add. No torch and no DeepSpeed in here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from learner.config import LearnerConfig
from rollout.component import nearest
from rollout.component.mistakes import EngineArgument

WHERE = "learner.deepspeed"
DEFAULT_BUCKET = 500_000_000
"""Gradients that DeepSpeed's bucket has room for unless told otherwise, in numbers."""
Path = tuple[str, ...]


def _each(names: str, why: str) -> dict[Path, str]:
    return {tuple(name.split(".")): why for name in names.split()}


OWNED: dict[Path, str] = {
    **_each(
        "train_batch_size train_micro_batch_size_per_gpu gradient_accumulation_steps",
        "micro-batches are those of learner.micro_batch_tokens, another number in each step",
    ),
    **_each("gradient_clipping", "it is learner.max_grad_norm"),
    **_each("optimizer scheduler", "they are learner.policy_lr, critic_lr, lr_schedule, adam_... and weight_decay"),
    **_each("bf16 fp16 amp data_types torch_autocast", "number formats follow from model.dtype"),
    **_each("zero_optimization.stage", "it is learner.zero_stage"),
    **_each(
        "zero_optimization.offload_optimizer.device zero_optimization.offload_param.device "
        "zero_optimization.cpu_offload zero_optimization.cpu_offload_param zero_force_ds_cpu_optimizer",
        "what is kept in host memory is learner.offload",
    ),
    **_each("zero_allow_untested_optimizer", "the optimiser is torch's AdamW"),
    **_each("steps_per_print", "a run has its own metrics"),
    **_each(
        "zero_optimization.zero_quantized_weights zero_optimization.zero_quantized_gradients "
        "zero_optimization.zero_quantized_nontrainable_weights compression_training communication_data_type",
        "rounded weights or gradients would not be those that the checks of each step see",
    ),
    **_each(
        "zero_optimization.elastic_checkpoint zero_optimization.pipeline_loading_checkpoint elasticity checkpoint",
        "checkpoints are the run's own",
    ),
}
"""Keys by their path, each with the reason why it is not to be set."""
PASSED_ON = ("zero_optimization", "comms_logger", "flops_profiler", "wall_clock_breakdown", "memory_breakdown", "aio")
"""Sections that a user may add to."""


def refusals(options: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Path and reason of every key that must not be set."""
    for path in _paths(options):
        owner = next((path[:end] for end in range(1, len(path) + 1) if path[:end] in OWNED), None)
        if owner is not None:
            yield owner, f"not to be set here: {OWNED[owner]}"
        elif path[0] not in PASSED_ON:
            yield path[:1], f"no section that a run passes on to DeepSpeed; {nearest(path[0], list(PASSED_ON))}"


def _paths(options: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, (*above, str(key)))
        else:
            yield (*above, str(key))


def deepspeed_settings(config: LearnerConfig, bfloat16: bool, on_gpu: bool) -> dict[str, Any]:
    """DeepSpeed's own configuration. Batch sizes in it have no effect: accumulation is driven by hand.

    Args:
        bfloat16: number format of the weights.
        on_gpu: whether host memory is pinned, so that copies are fast.

    Raises:
        UserError: ``learner.deepspeed`` sets what the run sets.
    """
    for path, why in refusals(config.deepspeed):
        raise EngineArgument(f"{WHERE}.{'.'.join(path)}: {why}")
    zero: dict[str, Any] = {"stage": config.zero_stage}
    host = {"device": "cpu", "pin_memory": on_gpu}
    if config.offload != "none":
        zero["offload_optimizer"] = host
    if config.offload == "all":
        zero["offload_param"] = host
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.max_grad_norm if config.zero_stage > 0 else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if bfloat16:
        settings["bf16"] = {"enabled": True, "check_grad_overflow": True}
        if config.zero_stage >= 1:
            settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return _merged(settings, config.deepspeed)


def with_fitting_bucket(settings: Mapping[str, Any], num_trained: int) -> dict[str, Any]:
    """The same with no larger a bucket for gradients than there are, unless a size is given.

    DeepSpeed makes it at its whole size in each backward pass, 2 GB by default, however little is trained.
    """
    bucket = {"reduce_bucket_size": min(DEFAULT_BUCKET, max(1, num_trained))}
    return {**settings, "zero_optimization": {**bucket, **settings["zero_optimization"]}}


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Both, section by section."""
    found = dict(ours)
    for key, value in theirs.items():
        mine = found.get(key)
        found[key] = _merged(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return found
