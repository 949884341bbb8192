"""What a model's folder, or the hub, says of a model, read without loading weights."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from learner.config import ModelConfig
from rollout.component import nearest
from rollout.component.mistakes import ModelFiles, NotFound

_HUB_ID = re.compile(r"(?!\.)[\w.-]+(/[\w.-]+)?")
"""``name`` or ``owner/name``; what begins with a dot is meant as a path."""


def load_model_config(path: str, key: str, trust_remote_code: bool = False, with_weights: bool = True) -> Any:
    """The ``transformers`` configuration of a folder or hub id.

    Args:
        key: where ``path`` stands in the configuration, for messages.
        with_weights: whether a folder must hold weights too.

    Raises:
        UserError: neither a folder in Hugging Face format nor a model that the hub gives.
    """
    folder = Path(path)
    if folder.is_dir():
        _require_model_files(folder, key, with_weights)
        try:
            return _read(str(folder), trust_remote_code)
        except ValueError as error:
            raise ModelFiles(f"{key}: {path}/config.json is not a model configuration: {error}") from error
    if folder.exists():
        raise ModelFiles(f"{key}: {path!r} is a file; give the folder that holds config.json")
    if not _HUB_ID.fullmatch(path):
        raise NotFound(f"{key}: no such folder: {path!r}{_similar_folder(folder)}")
    online = hub_is_reachable()
    if not online:
        # Also for whatever is loaded after this, here or in the workers: a hub that does not answer is asked again for
        # minutes. The variable is read when transformers is first imported, hence the argument besides.
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        return _read(path, trust_remote_code, local_files_only=not online)
    except ValueError as error:
        why = f"gives ({error})" if online else "has left in the cache (the hub cannot be reached)"
        raise NotFound(
            f"{key}: {path!r} is neither a folder here{_similar_folder(folder)} nor a model that the Hugging Face hub "
            f"{why}. A starting model for a built-in task is made by 'dvpo warmstart --task NAME --output {path}'"
        ) from error


def max_positions(model: Any) -> int | None:
    """Tokens of the longest sequence that a model has positions for; None where its kind has no such limit.

    Args:
        model: what :func:`load_model_config` gave.
    """
    limit: int | None = getattr(model.get_text_config(), "max_position_embeddings", None)  # not every kind has it
    return limit


def foreign_code(model: ModelConfig) -> str:
    """What to say of a model whose folder may bring code that is run; empty if it may not."""
    if not model.trust_remote_code:
        return ""
    paths = dict.fromkeys(filter(None, [model.path, model.critic_path]))
    found = [str(file) for path in paths for file in sorted(Path(path).glob("*.py"))]
    brings = f"{', '.join(found[:5])}" if found else f"what {' and '.join(paths)} may bring"
    return f"model.trust_remote_code: Python code of the model is run on every host of the run: {brings}"


def num_policy_weights(model: ModelConfig) -> int:
    """Parameters of the policy, tied ones counted once; made without memory for them.

    Raises:
        UserError: the model is not there, or is no causal language model.
    """
    return _num_weights(model, model.path, "model.path", "AutoModelForCausalLM")


def num_critic_weights(model: ModelConfig) -> int:
    """Parameters of the critic's transformer body.

    Raises:
        UserError: the model is not there.
    """
    key = "model.path" if model.critic_path is None else "model.critic_path"
    return _num_weights(model, model.critic_body_path, key, "AutoModel")


def num_adapter_weights(model: ModelConfig) -> int:
    """Parameters of the policy's adapters; 0 without.

    Raises:
        UserError: the model is not there, or adapters do not fit it.
    """
    from learner.models.lora.targets import adapter_numbers

    if model.lora is None:
        return 0
    return adapter_numbers(_made(model, model.path, "model.path", "AutoModelForCausalLM"), model.lora)[0]


def _num_weights(model: ModelConfig, path: str, key: str, kind: str) -> int:
    return sum(parameter.numel() for parameter in _made(model, path, key, kind).parameters())


def _made(model: ModelConfig, path: str, key: str, kind: str) -> Any:
    """The model with shapes alone."""
    import torch
    import transformers

    found = load_model_config(path, key, model.trust_remote_code)
    try:
        with torch.device("meta"):  # shapes alone
            return getattr(transformers, kind).from_config(found, trust_remote_code=model.trust_remote_code)
    except Exception as error:  # of transformers or of the model's own code
        raise ModelFiles(f"{key}: {path}/config.json cannot be used: {' '.join(str(error).split())[:300]}") from error


def hub_is_reachable(timeout_s: float = 5.0) -> bool:
    """Whether the Hugging Face hub answers, or a proxy might reach it; False if HF_HUB_OFFLINE asks to keep off it."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    hub = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        with socket.create_connection((hub.hostname or "", hub.port or 443), timeout=timeout_s):
            return True
    except OSError:
        return False


def _read(source: str, trust_remote_code: bool, local_files_only: bool = False) -> Any:
    """The configuration.

    Raises:
        ValueError: there is none, or it cannot be read; the reason on one line.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            source, trust_remote_code=trust_remote_code, local_files_only=local_files_only
        )
    except Exception as error:  # the hub client raises errors of many libraries
        raise ValueError(" ".join(str(error).split())[:300]) from error


def _require_model_files(folder: Path, key: str, with_weights: bool) -> None:
    """A model's folder must have a configuration and weights."""
    if not (folder / "config.json").is_file():
        inside = folder / "policy"  # as checkpoints have it
        hint = f"; did you mean {str(inside)!r}?" if (inside / "config.json").is_file() else ""
        raise ModelFiles(f"{key}: folder {str(folder)!r} has no config.json, so it is not in Hugging Face format{hint}")
    if with_weights and not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise ModelFiles(f"{key}: folder {str(folder)!r} has no weights (*.safetensors)")


def _similar_folder(folder: Path) -> str:
    """A hint at folders beside the one that is missing."""
    if not folder.parent.is_dir() or folder.parent == Path("."):
        return ""
    names = [str(entry) for entry in folder.parent.iterdir() if entry.is_dir()][:50]
    return f"; {nearest(str(folder), names)}" if names else ""
