"""Adapters in a checkpoint: peft's own format, and of which frozen weights they are.

``adapter/``::

    adapter_config.json, adapter_model.safetensors   as peft reads them: ``PeftModel.from_pretrained(base, folder)``
    base.json                                        fingerprint of the frozen weights, which the checkpoint lacks

"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer
from transformers.utils import cached_file

from learner.config import ModelConfig
from learner.models.lora.adapters import ADAPTER

FOLDER = "adapter"
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.safetensors.index.json", "*.bin.index.json", "*.gguf")
_READ = 4096
"""Bytes that are looked at of each tensor: a moment even for a large model."""
_STRIDE = 1 << 18
"""Where tensors are not known by name: as many bytes of each so many."""


@dataclass(frozen=True, slots=True)
class AdapterExport:
    """The policy's adapters as peft loads them.

    Attributes:
        config: peft's.
        weights: by their names in the model.
        model: that they are of.
    """

    config: Any
    weights: dict[str, Tensor]
    model: ModelConfig

    def write(self, folder: Path) -> None:
        """Write into an empty folder."""
        named = {
            f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": weight for name, weight in self.weights.items()
        }
        save_file({name: weight.contiguous() for name, weight in named.items()}, folder / "adapter_model.safetensors")
        self.config.save_pretrained(folder)
        (folder / "base.json").write_text(json.dumps({"fingerprint": fingerprint(self.model)}) + "\n", encoding="utf-8")


def starting_folder(model: ModelConfig) -> Path:
    """The folder of a starting model: itself, or for a hub id the one in the cache that it was loaded from.

    Raises:
        OSError: neither is there.
    """
    if Path(model.path).is_dir():
        return Path(model.path)
    # Into the cache, where this process needed the weights only so far.
    AutoTokenizer.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    file = cached_file(model.path, "config.json", local_files_only=True)
    assert file is not None  # it raises where there is none
    return Path(file).parent


def fingerprint(model: ModelConfig) -> str:
    """Of the starting model's weights in their files: of a part of every tensor, not of every number."""
    return _fingerprint(starting_folder(model))


@cache  # files that a run trains on are not changed under it
def _fingerprint(folder: Path) -> str:
    found = hashlib.sha256()
    parts: list[tuple[str, bytes]] = []
    for path in sorted(file for file in folder.iterdir() if any(file.match(pattern) for pattern in WEIGHTS[:4])):
        with path.open("rb") as file:
            parts += _of_tensors(file) if path.suffix == ".safetensors" else _of_file(file, path)
    for name, part in sorted(parts):
        found.update(name.encode() + part)
    return found.hexdigest()


def _of_tensors(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Name with facts, and the middle of each tensor of a safetensors file, however the model is cut into files."""
    num_header = int.from_bytes(file.read(8), "little")
    header: dict[str, Any] = json.loads(file.read(num_header))
    for name, facts in header.items():
        if name != "__metadata__":
            begin, end = facts["data_offsets"]
            file.seek(8 + num_header + max(begin, (begin + end - _READ) // 2))
            yield f"{name} {facts['dtype']} {facts['shape']}", file.read(min(_READ, end - begin))


def _of_file(file: BinaryIO, path: Path) -> Iterator[tuple[str, bytes]]:
    for start in range(0, path.stat().st_size, _STRIDE):
        file.seek(start)
        yield f"{path.name} {start}", file.read(_READ)


def misfit(checkpoint: Path, config: Any | None, model: ModelConfig | None) -> str:
    """Why a checkpoint cannot be gone on from with these adapters; empty if it can.

    Args:
        config: peft's configuration of the adapters that are configured, None for whole weights.
        model: whose frozen weights are to be those of the checkpoint; None does not compare them.
    """
    folder = checkpoint / FOLDER
    if folder.is_dir() != (config is not None):
        had = "adapters" if folder.is_dir() else "whole weights"
        key = "model.lora" if config is None else "no model.lora"
        return f"{checkpoint}: the run that wrote it trained {had}; go on with {key}, or start a new run"
    if config is None:
        return ""
    saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    for key, theirs, ours in (
        ("model.lora.rank", saved["r"], config.r),
        ("model.lora.alpha", float(saved["lora_alpha"]), float(config.lora_alpha)),
        ("model.lora.target_modules", sorted(saved["target_modules"]), sorted(config.target_modules)),
    ):
        if theirs != ours:
            return f"{checkpoint}: its adapters were made with {key} {theirs}, and now it is {ours}; set it back"
    if model is not None and json.loads((folder / "base.json").read_text())["fingerprint"] != fingerprint(model):
        return (
            f"{checkpoint}: its adapters are of other frozen weights than those of model.path ({model.path}); give the "
            "model that this run began with"
        )
    return ""
