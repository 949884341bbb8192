"""What a checkpoint holds, and how all ranks read it together; ``snapshot.py`` is how they write it.

``step-N/``::

    manifest.json          sha256 of every file, number of ranks, ZeRO stage
    policy/                Hugging Face format with tokenizer; transformers and vLLM load it as it is
    adapter/               with model.lora, see ``adapters.py``; policy/ has them merged, and may be left out
    critic/                model.safetensors, critic.json (shape of the heads), config.json (of the body); of a critic
                           over the policy's frozen weights its own adapters and heads alone
    state/policy, /critic  weights and optimiser state as DeepSpeed writes them, split over ranks; no frozen weights of
                           a policy with adapters
    state/rank-R.pt        random streams and the algorithm's running scales
    state/learner.json     counters, and whatever the caller wants to keep with them

The folder must be on storage that all ranks see.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learner.checkpoint.adapters import misfit
from learner.checkpoint.random_state import set_random_state
from learner.checkpoint.safety import refuse_code
from learner.models.bottleneck import BottleneckHeads
from learner.models.critic import CriticModel
from learner.models.flow import FlowHeads
from learner.models.lora.merge import merge_into, merged_by
from learner.models.policy import PolicyModel
from learner.storage.manifest import CheckpointError, verify
from learner.update.learner import Learner

_POLICY_PREFIX = "lm."


def load_checkpoint(learner: Learner, folder: Path) -> dict[str, Any]:
    """Restore everything that snapshots of all ranks wrote and return its ``extra``. Called by every rank.

    With as many ranks as wrote it, training goes on bit by bit as it would have. With another number weights, optimiser
    and scales are the same, but sums are rounded differently and random streams start anew.

    Raises:
        CheckpointError: the folder is incomplete or damaged, reading it would run code, or it was written with another
            ZeRO stage or kind of critic.
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
        refuse_code(folder)
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
    policy = learner.policy.module
    assert isinstance(policy, PolicyModel)
    if wrong := misfit(folder, policy.adapters, None):
        return wrong
    if (learner.critic is not None) != (folder / "critic").is_dir():
        has = "has a" if learner.critic is None else "has no"
        return f"{folder}: it {has} critic, which does not fit {type(learner.algorithm).__name__}"
    if learner.critic is not None:
        saved, mine = json.loads((folder / "critic" / "critic.json").read_text()), critic_shape(learner.critic.module)
        if saved != mine:
            return f"{folder}: its critic has the shape {saved}, the configured one {mine}"
    return ""


def policy_weights(learner: Learner) -> Iterable[tuple[str, Tensor]]:
    """Name and full weight of each policy parameter, on rank 0; empty elsewhere. Called by every rank.

    The names are transformers', which are not always those of the model's files: see ``published.py``.

    A tied LM head is not listed beside the embedding it shares. Adapters are merged.
    """
    policy, weights = learner.policy.module, learner.policy.full_weights()
    assert isinstance(policy, PolicyModel)
    if policy.adapters is not None:
        scale = policy.adapters.lora_alpha / policy.adapters.r
        # Of copied weights, which are written to if they are float32: there is no second one.
        weights = merged_by(weights, lambda weight, a, b: merge_into(weight, a, b, scale).to(weight.dtype))
    return [(name.removeprefix(_POLICY_PREFIX), weight) for name, weight in weights]


def adapter_weights(learner: Learner) -> Iterable[tuple[str, Tensor]]:
    """Name and full weight of each of the policy's adapters, on rank 0; empty elsewhere. Called by every rank."""
    found = learner.policy.full_weights(trained_only=True)
    return [(name.removeprefix(_POLICY_PREFIX), weight) for name, weight in found]


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
    if critic.adapts:
        shape["adapts"] = True
    if isinstance(critic.heads, FlowHeads):
        shape["flow_hidden"] = critic.heads.num_hidden
    return shape | ({"bottleneck_dim": critic.heads.dim} if isinstance(critic.heads, BottleneckHeads) else {})
