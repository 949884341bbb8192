"""A rank's share of a checkpoint: copied into memory at once, written while training goes on.

``take_snapshot`` on every rank, then ``Snapshot.write`` on every rank, in whatever thread, into one folder of
:func:`learner.storage.manifest.begin`; :func:`learner.storage.manifest.commit` makes a checkpoint of what all
of them wrote.
"""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from learner.checkpoint.adapters import FOLDER, WEIGHTS, AdapterExport, starting_folder
from learner.checkpoint.load import adapter_weights, critic_shape, policy_weights
from learner.checkpoint.random_state import random_state
from learner.config import ModelConfig
from learner.engine.memory_copy import copy_to_memory
from learner.engine.state_copy import StateCopy
from learner.models.critic import CriticModel
from learner.models.policy import PolicyModel
from learner.storage.files import CheckpointFiles
from learner.storage.manifest import FileFacts, SnapshotFacts
from learner.update.learner import Learner


@dataclass(frozen=True, slots=True)
class PolicyExport:
    """The policy as others load it: configuration, weights, tokenizer and chat template in Hugging Face format.

    Attributes:
        lm: read for its configuration only.
        weights: by Hugging Face name.
        model: where tokenizer, chat template and other side files are copied from.
    """

    lm: PreTrainedModel
    weights: dict[str, Tensor]
    model: ModelConfig

    def write(self, folder: Path) -> None:
        """Write into an empty folder. What a run only carries is copied byte for byte, whatever is in it."""
        # transformers refuses to save values of generate() that it has loaded, such as a temperature without do_sample.
        # A run never reads them, so it saves a model with the defaults, and then the user's own file in their place.
        # The copy is a shallow one: ranks go on training with the same weights meanwhile.
        lm = copy.copy(self.lm)
        lm.generation_config = GenerationConfig()
        lm.save_pretrained(folder, state_dict=self.weights)
        if self.lm.can_generate():
            self.lm.generation_config.to_json_file(folder / "generation_config.json", use_diff=True)
        for file in starting_folder(self.model).iterdir():
            is_ours = any(file.match(pattern) for pattern in (*WEIGHTS, "config.json"))
            if file.is_file() and not is_ours:
                shutil.copyfile(file, folder / file.name)


@dataclass(frozen=True, slots=True)
class CriticExport:
    """The critic's weights, the shape of its heads and the configuration of its body."""

    critic: CriticModel
    weights: dict[str, Tensor]

    def write(self, folder: Path) -> None:
        """Write into an empty folder."""
        save_file({name: weight.contiguous() for name, weight in self.weights.items()}, folder / "model.safetensors")
        (folder / "critic.json").write_text(json.dumps(critic_shape(self.critic), indent=1) + "\n")
        self.critic.body.config.save_pretrained(folder)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that one rank writes, in ordinary memory.

    Attributes:
        facts: see :class:`learner.storage.manifest.SnapshotFacts`.
        rank: whose share it is.
        states: of the engines, ``policy`` and ``critic``.
        rank_state: random streams and the algorithm's running scales.
        learner_json: counters and the caller's own state; rank 0 writes it.
        exports: what rank 0 writes for others to load, by folder.
    """

    facts: SnapshotFacts
    rank: int
    states: dict[str, StateCopy]
    rank_state: Any
    learner_json: str
    exports: dict[str, PolicyExport | AdapterExport | CriticExport]

    def write(self, folder: Path) -> dict[str, FileFacts]:
        """Write this rank's files, durably. Touches neither the learner's weights nor its process group.

        Returns:
            size and hash of each file, by its path within ``folder``.

        Raises:
            DiskFullError: there is no space; what has been written so far is left to the caller.
        """
        files = CheckpointFiles(folder)
        for name, state in self.states.items():
            state.write(files, f"state/{name}")
        files.torch_save(f"state/rank-{self.rank}.pt", self.rank_state)
        if self.rank == 0:
            files.text("state/learner.json", self.learner_json)
        for name, export in self.exports.items():
            with files.subfolder(name) as into:
                export.write(into)
        return files.facts


def take_snapshot(learner: Learner, model: ModelConfig, extra: dict[str, Any]) -> Snapshot:
    """Copy this rank's share of a checkpoint; when it returns, training may go on. Called by every rank.

    Args:
        model: where tokenizer files are copied from.
        extra: JSON that :func:`learner.checkpoint.load.load_checkpoint` gives back (the controller's own state).
    """
    world = learner.world
    states = {"policy": learner.policy.copy_state()}
    exports: dict[str, PolicyExport | AdapterExport | CriticExport] = {}
    policy = learner.policy.module
    assert isinstance(policy, PolicyModel)
    if policy.adapters is not None:
        weights = dict(adapter_weights(learner))
        if world.rank == 0:
            exports[FOLDER] = AdapterExport(policy.adapters, weights, model)
    with_policy = model.lora is None or model.lora.merged_checkpoints
    weights = dict(policy_weights(learner)) if with_policy else {}
    if world.rank == 0 and with_policy:
        kept = set(policy.lm.state_dict())  # without the buffers that are not saved
        buffers = {name: buffer.cpu().clone() for name, buffer in policy.lm.named_buffers() if name in kept}
        exports["policy"] = PolicyExport(policy.lm, weights | buffers, model)
    if learner.critic is not None:
        states["critic"] = learner.critic.copy_state()
        shares = model.critic_adapts  # weights with the policy
        critic, weights = learner.critic.module, dict(learner.critic.full_weights(trained_only=shares))
        assert isinstance(critic, CriticModel)
        if world.rank == 0:
            exports["critic"] = CriticExport(critic, weights)
    rank_state, num_bytes = copy_to_memory({"random": random_state(), "algorithm": learner.algorithm.state_dict()})
    num_bytes += sum(state.num_bytes for state in states.values())
    num_bytes += sum(weight.nbytes for export in exports.values() for weight in export.weights.values())
    text = json.dumps({"counters": learner.state_dict(), "extra": extra}) + "\n"
    facts = SnapshotFacts(num_bytes, world.size, learner.settings.config.zero_stage)
    return Snapshot(facts, world.rank, states, rank_state, text, exports)
