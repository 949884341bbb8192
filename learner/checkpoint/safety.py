"""Whether reading a checkpoint would run code: DeepSpeed's files are pickles, which may name any function."""

from __future__ import annotations

from pathlib import Path

from torch.serialization import get_unsafe_globals_in_checkpoint

from learner.storage.manifest import CheckpointError

EXPECTED = frozenset({
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
})  # fmt: skip
"""What DeepSpeed itself writes beside tensors and plain values."""


def refuse_code(checkpoint: Path) -> None:
    """Look at all files of a checkpoint that are read as pickles, without reading them as such.

    Raises:
        CheckpointError: one names something that no checkpoint of a run holds, or is written in another way.
    """
    for path in sorted((checkpoint / "state").rglob("*")):
        if path.suffix not in {".pt", ".pth", ".bin", ".pkl"}:
            continue
        try:
            found = set(get_unsafe_globals_in_checkpoint(str(path))) - EXPECTED
        except Exception as error:  # whatever a file that torch has not written makes its reader raise
            raise CheckpointError(f"{path}: not written by torch.save ({error}), so it is not read") from error
        if found:
            raise CheckpointError(
                f"{path}: reading it would call {', '.join(sorted(found))}, which no checkpoint of a run does. It was "
                "changed or made by somebody else, and is not read"
            )
