"""What a model's folder says of itself, read without loading weights."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rollout.component import UserError, nearest


def load_model_config(path: str, key: str, trust_remote_code: bool = False) -> Any:
    """The ``transformers`` configuration of a folder or hub id.

    Raises:
        UserError: neither a folder in Hugging Face format nor a model that the hub gives.
    """
    folder = Path(path).expanduser()
    online = True
    if folder.is_dir():
        _check_folder(folder, key)
    elif folder.exists():
        raise UserError(f"{key}: {path!r} is a file; give the folder that holds config.json")
    elif not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) or path.startswith("."):
        raise UserError(f"{key}: no such folder: {path!r}{_siblings(folder)}")
    else:
        online = hub_is_reachable()
    if not online:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported: no minutes of retries, here or later
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder) if folder.is_dir() else path, trust_remote_code=trust_remote_code)
    except Exception as error:  # the hub client raises errors of many libraries
        reason = " ".join(str(error).split())[:300]
        if folder.is_dir():
            raise UserError(f"{key}: {path}/config.json is not a model configuration: {reason}") from error
        why = f"gives ({reason})" if online else "has left in the cache (the hub cannot be reached)"
        raise UserError(
            f"{key}: {path!r} is neither a folder here{_siblings(folder)} nor a model that the Hugging Face hub {why}. "
            f"A starting model for a built-in task is made by 'dvpo warmstart --task NAME --output {path}'"
        ) from error


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


def check_causal_lm(model: Any, path: str, trust_remote_code: bool) -> None:
    """Refuse models that do not predict the next token.

    Raises:
        UserError: the model's type has no causal language model.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    brings_code = trust_remote_code and "AutoModelForCausalLM" in getattr(model, "auto_map", {})
    if model.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not brings_code:
        raise UserError(
            f"model.path: {path!r} is of type {model.model_type!r}, which is not a causal language model that "
            "transformers knows"
        )


def _check_folder(folder: Path, key: str) -> None:
    """A model folder must have a configuration and weights."""
    if not (folder / "config.json").is_file():
        inside = folder / "policy"
        hint = f"; did you mean {str(inside)!r}?" if (inside / "config.json").is_file() else ""
        raise UserError(f"{key}: folder {str(folder)!r} has no config.json, so it is not in Hugging Face format{hint}")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise UserError(f"{key}: folder {str(folder)!r} has no weights (*.safetensors)")


def _siblings(folder: Path) -> str:
    """A hint at folders beside the one that is missing."""
    if not folder.parent.is_dir() or folder.parent == Path("."):
        return ""
    names = [str(entry) for entry in folder.parent.iterdir() if entry.is_dir()][:50]
    return f"; {nearest(str(folder), names)}" if names else ""
