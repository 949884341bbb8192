"""What a checkpoint holds, and how all ranks write and read it together.

``step-N/``::

    manifest.json          sha256 of every file, number of ranks, ZeRO stage
    policy/                Hugging Face format with tokenizer; transformers and vLLM load it as it is
    critic/                model.safetensors, critic.json (shape of the heads), config.json (of the body)
    state/policy, /critic  weights and optimiser state as DeepSpeed writes them, split over ranks
    state/rank-R.pt        random streams and the algorithm's running scales
    state/learner.json     counters, and whatever the caller wants to keep with them

The folder must be on storage that all ranks see.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from learner.config import ModelConfig
from learner.manifest import CheckpointError, Skipped, begin, checkpoint_step, commit, find_newest_complete, verify
from learner.models.bottleneck import BottleneckHeads
from learner.models.critic import CriticModel
from learner.models.flow import FlowHeads
from learner.models.policy import PolicyModel
from learner.update import Learner

__all__ = ["CheckpointError", "Skipped", "find_newest_complete", "load_checkpoint", "policy_weights", "save_checkpoint"]

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.safetensors.index.json", "*.bin.index.json", "*.gguf")
_POLICY_PREFIX = "lm."


def save_checkpoint(learner: Learner, final: Path, model: ModelConfig, extra: dict[str, Any]) -> None:
    """Write a checkpoint; it appears at ``final`` complete or not at all. Called by every rank.

    Args:
        final: ``.../checkpoints/step-N``; one that is already there is replaced.
        model: where tokenizer files are copied from.
        extra: JSON that :func:`load_checkpoint` gives back (the controller's own state).
    """
    world = learner.world
    partial = Path(world.gather_objects(str(begin(final)) if world.rank == 0 else "")[0])
    state = partial / "state"
    learner.policy.save_state(state / "policy")
    weights = policy_weights(learner)
    if world.rank == 0:
        write_policy(partial / "policy", learner.policy.module, dict(weights), model)
    if learner.critic is not None:
        learner.critic.save_state(state / "critic")
        weights_of_critic = dict(learner.critic.full_weights())
        if world.rank == 0:
            write_critic(partial / "critic", learner.critic.module, weights_of_critic)
    torch.save({"random": random_state(), "algorithm": learner.algorithm.state_dict()}, state / f"rank-{world.rank}.pt")
    if world.rank == 0:
        (state / "learner.json").write_text(json.dumps({"counters": learner.state_dict(), "extra": extra}) + "\n")
    world.barrier()
    if world.rank == 0:
        stage = learner.settings.config.zero_stage
        commit(partial, final, {"step": checkpoint_step(final), "num_ranks": world.size, "zero_stage": stage})
    world.barrier()


def load_checkpoint(learner: Learner, folder: Path) -> dict[str, Any]:
    """Restore everything :func:`save_checkpoint` wrote and return its ``extra``. Called by every rank.

    With as many ranks as wrote it, training goes on bit by bit as it would have. With another number weights, optimiser
    and scales are the same, but sums are rounded differently and random streams start anew.

    Raises:
        CheckpointError: the folder is incomplete or damaged, or was written with another ZeRO stage or kind of critic.
    """
    world = learner.world
    problem, num_ranks = world.gather_objects(_examine(learner, folder) if world.rank == 0 else None)[0]
    if problem:
        raise CheckpointError(problem)
    state, scratch = folder / "state", folder.parent / f".{folder.name}.resharded"
    learner.policy.load_state(state / "policy", num_ranks, scratch / "policy")
    if learner.critic is not None:
        learner.critic.load_state(state / "critic", num_ranks, scratch / "critic")
    same = num_ranks == world.size
    saved = torch.load(state / f"rank-{world.rank if same else 0}.pt", weights_only=True)
    learner.algorithm.load_state_dict(saved["algorithm"])
    if same:
        set_random_state(saved["random"])
    record: dict[str, Any] = json.loads((state / "learner.json").read_text())
    learner.load_state_dict(record["counters"])
    world.barrier()
    if world.rank == 0:
        shutil.rmtree(scratch, ignore_errors=True)
    extra: dict[str, Any] = record["extra"]
    return extra


def _examine(learner: Learner, folder: Path) -> tuple[str, int]:
    """Why the checkpoint cannot be loaded into this learner (empty if it can), and how many ranks wrote it."""
    try:
        manifest = verify(folder)
    except CheckpointError as error:
        return str(error), 0
    return _misfit(learner, folder, manifest["zero_stage"]), int(manifest["num_ranks"])


def _misfit(learner: Learner, folder: Path, stage: int) -> str:
    """Which option does not fit the checkpoint; empty if all do."""
    ours = learner.settings.config.zero_stage
    if stage != ours:
        return (
            f"{folder}: the optimiser state was saved with ZeRO stage {stage} and can only be resumed so; set "
            f"learner.zero_stage: {stage} (now {ours}), or start a new run with model.path: {folder / 'policy'}"
        )
    if (learner.critic is not None) != (folder / "critic").is_dir():
        has = "has a" if learner.critic is None else "has no"
        return f"{folder}: it {has} critic, which does not fit {type(learner.algorithm).__name__}"
    if learner.critic is not None:
        saved, mine = json.loads((folder / "critic" / "critic.json").read_text()), critic_shape(learner.critic.module)
        if saved != mine:
            return f"{folder}: its critic has the shape {saved}, the configured one {mine}"
    return ""


def policy_weights(learner: Learner) -> Iterable[tuple[str, Tensor]]:
    """Hugging Face name and full weight of each policy parameter, on rank 0; empty elsewhere. Called by every rank.

    A tied LM head is not listed beside the embedding it shares.
    """
    return [(name.removeprefix(_POLICY_PREFIX), weight) for name, weight in learner.policy.full_weights()]


def write_policy(folder: Path, policy: nn.Module, weights: dict[str, Tensor], model: ModelConfig) -> None:
    """Write a Hugging Face folder: configuration, weights, tokenizer and chat template."""
    assert isinstance(policy, PolicyModel)
    kept = set(policy.lm.state_dict())  # without the buffers that are not saved
    buffers = {name: buffer for name, buffer in policy.lm.named_buffers() if name in kept}
    folder.mkdir(parents=True)
    copy_tokenizer(model, folder)
    policy.lm.save_pretrained(folder, state_dict=weights | buffers)


def copy_tokenizer(model: ModelConfig, folder: Path) -> None:
    """Copy everything of the starting model that is not weights, byte for byte where it is a local folder."""
    source = Path(model.path)
    if not source.is_dir():
        AutoTokenizer.from_pretrained(model.path, trust_remote_code=model.trust_remote_code).save_pretrained(folder)
        return
    for file in source.iterdir():
        if file.is_file() and not any(file.match(pattern) for pattern in _WEIGHTS):
            shutil.copyfile(file, folder / file.name)


def write_critic(folder: Path, critic: nn.Module, weights: dict[str, Tensor]) -> None:
    """Write the critic's weights, the shape of its heads and the configuration of its body."""
    assert isinstance(critic, CriticModel)
    folder.mkdir(parents=True)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / "model.safetensors")
    (folder / "critic.json").write_text(json.dumps(critic_shape(critic), indent=1) + "\n")
    critic.body.config.save_pretrained(folder)


def critic_shape(critic: nn.Module) -> dict[str, Any]:
    """What a critic must agree in to take over another's weights."""
    assert isinstance(critic, CriticModel)
    config = critic.heads.config
    shape = {
        "num_heads": config.num_heads,
        "num_quantiles": config.num_quantiles,
        "monotonicity": config.monotonicity,
        "hidden_size": critic.heads.hidden_size,
    }
    if isinstance(critic.heads, FlowHeads):
        shape["flow_hidden"] = critic.heads.num_hidden
    return shape | ({"bottleneck_dim": critic.heads.dim} if isinstance(critic.heads, BottleneckHeads) else {})


def random_state() -> dict[str, Any]:
    """Every random stream of this process, as plain types and tensors."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.array(keys, dtype=np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put every random stream back to where :func:`random_state` saw it."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
