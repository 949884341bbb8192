"""What DeepSpeed would write to disk, kept in memory instead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from learner.engine.memory_copy import copy_to_memory


class StateRecorder:
    """Stands in for DeepSpeed's checkpoint engine: keeps a copy of what it is told to write, and writes nothing.

    Args:
        left_out: weights of the module that are not kept.
    """

    def __init__(self, left_out: frozenset[str] = frozenset()) -> None:
        self._left_out = left_out
        self.states: dict[str, Any] = {}
        self.num_bytes = 0
        self.scripts: dict[str, Path] = {}

    def save(self, state_dict: Any, path: str) -> None:
        if self._left_out and state_dict.get("module") is not None:
            kept = {name: value for name, value in state_dict["module"].items() if name not in self._left_out}
            state_dict = {**state_dict, "module": kept}
        copy, num_bytes = copy_to_memory(state_dict)
        self.states[os.path.normpath(path)] = copy
        self.num_bytes += num_bytes

    def add_scripts(self, save_path: str) -> None:
        """The scripts with which DeepSpeed's users read such a folder without DeepSpeed's engine."""
        import deepspeed

        folder = Path(deepspeed.__file__).parent / "utils"
        self.scripts = {name: folder / name for name in ("zero_to_fp32.py", "zero_to_torch.py")}

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing to do: the folder is made when the copy is written."""

    def create(self, info: object) -> None:
        """Nothing to do."""

    def commit(self, info: object) -> bool:
        return True

    def is_decoupled(self) -> bool:
        return False
