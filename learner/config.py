"""Options of the learner: which model, how it is optimised. No torch in here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rollout.component import PathText, StrictModel
from rollout.component.mistakes import Conflict, WithoutEffect

ReferencePlace = Literal["replicated", "sharded", "offloaded"]
RECOMPUTED_FROM = 10**9
"""Weights of a model from which activations are recomputed unless told otherwise (our choice)."""


class LoraOptions(StrictModel):
    """Low-rank adapters (LoRA, arXiv:2106.09685), which are trained instead of the policy's weights.

    There is no dropout: old and current log-probabilities must differ by the weights only.
    """

    rank: int = Field(16, ge=1, le=4096, description="Width of an adapter.")
    alpha: int = Field(32, ge=1, description="What an adapter adds is multiplied by alpha / rank.")
    target_modules: Literal["all-linear"] | list[str] = Field(
        "all-linear",
        min_length=1,
        description="Linear layers that get adapters, by the last part of their names (q_proj, v_proj, ...) or their "
        "whole paths. 'all-linear': all before the head.",
    )
    critic: Literal["whole", "adapter"] = Field(
        "whole",
        description="What a critic is: a transformer of its own, or heads and adapters over the policy's frozen "
        "weights, which are on a device once for both.",
    )
    merged_checkpoints: bool = Field(
        True,
        description="Checkpoints also hold the whole policy, adapters merged into it, for 'dvpo eval' and others. "
        "false: the adapters only, in peft's format.",
    )

    @property
    def scale(self) -> float:
        """Factor of what an adapter adds."""
        return self.alpha / self.rank


class ModelConfig(StrictModel):
    """The language model that is trained, and the one its critic starts from."""

    path: PathText = Field(
        min_length=1, description="Folder in Hugging Face format, or a hub id, of the starting policy."
    )
    critic_path: PathText | None = Field(
        None, min_length=1, description="Folder or hub id of the critic's transformer body; default: the policy's."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Number format of the forward and backward pass. Optimiser states, critic weights and the critic's "
        "head are float32 either way. On CPU float32 is several times faster.",
    )
    trust_remote_code: bool = Field(False, description="Allow the model's folder to bring its own Python code.")
    gradient_checkpointing: bool | None = Field(
        None,
        description="Recompute activations in the backward pass: less memory, about a third more time. null: for "
        "models of a thousand million weights and more.",
    )
    attention: str | None = Field(
        None,
        min_length=1,
        description="Implementation of attention by the name that transformers knows it by (sdpa, eager, "
        "flash_attention_2, ...), of padded rows: with pack_rows false. null: as the model's class chooses.",
    )
    pack_rows: bool = Field(
        True,
        description="Train on rows one after another in one sequence, without padding between them. A model that "
        "cannot (it has more than full attention inside a row) is found out, and runs padded rows; the log says so.",
    )

    lora: LoraOptions | None = Field(
        None,
        description="Train low-rank adapters of the policy (package peft) and freeze its weights; {} for the usual "
        "ones. null: all weights are trained. The frozen policy is the reference of a KL penalty, too.",
    )

    def recomputes(self, num_weights: int) -> bool:
        """Whether the activations of a model of so many weights are computed again in the backward pass."""
        wanted = self.gradient_checkpointing
        return num_weights >= RECOMPUTED_FROM if wanted is None else wanted

    @property
    def critic_adapts(self) -> bool:
        """Whether a critic has adapters over the policy's frozen weights."""
        return self.lora is not None and self.lora.critic == "adapter"

    @property
    def critic_body_path(self) -> str:
        """Where the critic's transformer body comes from."""
        return self.critic_path or self.path


class LearnerConfig(StrictModel):
    """The learner ranks and the optimiser. One rank is one process with its own device."""

    num_workers: int = Field(1, ge=1, le=4096, description="Learner ranks; each holds one device.")
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2,
        description="What DeepSpeed splits over ranks: 0 nothing, 1 optimiser states, 2 and gradients, 3 and weights.",
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        "none",
        description="What is in host memory while it is not used: 'optimizer' its states, 'all' the weights too (ZeRO "
        "stage 3). Slower.",
    )
    reference: ReferencePlace = Field(
        "replicated",
        description="Where the frozen starting policy is, for methods that need one: on every rank, split over the "
        "ranks (ZeRO stage 3), or in every rank's host memory. The latter two bring one layer at a time.",
    )
    deepspeed: dict[str, Any] = Field(
        {},
        description="Merged into DeepSpeed's configuration, e.g. {zero_optimization: {reduce_bucket_size: 50000000}}. "
        "What a run sets itself is refused by name.",
    )
    policy_lr: float = Field(1e-6, gt=0.0, le=1.0, description="Peak learning rate of the policy.")
    critic_lr: float = Field(5e-6, gt=0.0, le=1.0, description="Peak learning rate of the critic.")
    lr_warmup_frac: float = Field(
        0.1, ge=0.0, lt=1.0, description="Share of all optimiser steps in which the learning rate rises from 0."
    )
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Learning rate after the warm-up: constant, or falling to 0 at the last step."
    )
    weight_decay: float = Field(0.0, ge=0.0, le=1.0, description="Decoupled weight decay of AdamW.")
    adam_beta1: float = Field(0.9, ge=0.0, lt=1.0, description="Decay of AdamW's first moment.")
    adam_beta2: float = Field(0.95, ge=0.0, lt=1.0, description="Decay of AdamW's second moment.")
    adam_eps: float = Field(1e-8, gt=0.0, le=1.0, description="AdamW's denominator offset.")
    max_grad_norm: float = Field(
        1.0, ge=0.0, description="Gradients are scaled down to this global 2-norm; 0 leaves them as they are."
    )
    micro_batch_tokens: int = Field(
        16384, ge=1, description="Padded tokens one device processes at a time; a longer trajectory goes alone."
    )
    critic_warmup_steps: int = Field(
        0, ge=0, description="First training steps in which only the critic is updated, counted within num_steps."
    )


def check_compatible(model: ModelConfig, learner: LearnerConfig) -> None:
    """Refuse combinations of model and learner options that cannot work.

    Raises:
        UserError: bfloat16 without ZeRO, which would keep no float32 master weights; what needs another ZeRO stage; or
            an implementation of attention that nothing uses.
    """
    if learner.offload != "none" and learner.zero_stage < (3 if learner.offload == "all" else 1):
        least = "3, which splits weights" if learner.offload == "all" else "1, 2 or 3"
        raise Conflict(f"learner.offload: {learner.offload!r} needs learner.zero_stage {least}")
    if learner.reference == "sharded" and learner.zero_stage != 3:
        raise Conflict("learner.reference: 'sharded' needs learner.zero_stage 3; or take 'offloaded'")
    if learner.reference != "replicated" and model.lora is not None:
        raise WithoutEffect(
            f"learner.reference: {learner.reference!r} has no effect with model.lora, whose reference is the policy "
            "without its adapters; leave it out"
        )
    if model.critic_adapts and model.critic_path is not None:
        raise WithoutEffect(
            "model.critic_path: has no effect with model.lora.critic 'adapter', whose critic has the policy's frozen "
            "weights; leave it out, or set model.lora.critic to 'whole'"
        )
    if model.attention is not None and model.pack_rows:
        raise WithoutEffect(
            "model.attention: has no effect on packed rows, which choose between flash-attention and sdpa themselves; "
            "leave it out, or set model.pack_rows to false"
        )
    if model.dtype == "bfloat16" and learner.zero_stage == 0:
        raise Conflict(
            "learner.zero_stage: 0 keeps no float32 master weights, which model.dtype 'bfloat16' needs; "
            "set learner.zero_stage to 1, 2 or 3 (1 splits only optimiser states)"
        )


def learner_environment(on_gpu: bool, num_threads: int = 1) -> dict[str, str]:
    """Environment variables of a learner rank, to be set before torch is imported there."""
    common = {"TOKENIZERS_PARALLELISM": "false"}
    return common if on_gpu else {**common, "OMP_NUM_THREADS": str(num_threads), "DS_ACCELERATOR": "cpu"}
