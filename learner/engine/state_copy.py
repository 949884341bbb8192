"""What an engine hands over to be saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learner.storage.files import CheckpointFiles


@dataclass(frozen=True, slots=True)
class StateCopy:
    """One rank's weights and optimiser state in ordinary memory; training may go on while it is written.

    Attributes:
        states: what ``torch.save`` writes, by file name.
        num_bytes: of the tensors in ``states``.
        sources: files that are to lie beside them, by file name.
    """

    states: Mapping[str, Any]
    num_bytes: int
    sources: Mapping[str, Path] = field(default_factory=dict)

    def write(self, files: CheckpointFiles, folder: str) -> None:
        """Write all of it below ``folder``."""
        for name, state in self.states.items():
            files.torch_save(f"{folder}/{name}", state)
        for name, source in self.sources.items():
            files.copy(f"{folder}/{name}", source)
