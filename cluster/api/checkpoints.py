"""Which model a user means, and which held-out splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.config.run_config import RunConfig
from cluster.report.run_record import CONFIG
from learner.storage.manifest import find_newest_complete
from rollout.component import nearest
from rollout.component.mistakes import ModelFiles, NoCheckpoint, UnknownName


def policy_folder(checkpoint: Path) -> Path:
    """The model folder inside a checkpoint, or the folder itself if it is a model.

    Raises:
        UserError: it is neither, or holds adapters alone.
    """
    for folder in (checkpoint / "policy", checkpoint):
        if (folder / "config.json").is_file():
            return folder
    if (checkpoint / "adapter" / "adapter_config.json").is_file():
        raise ModelFiles(
            f"CHECKPOINT: {checkpoint} holds adapters without a whole policy (model.lora.merged_checkpoints: false); "
            f"put them into the model with peft, PeftModel.from_pretrained(model, {str(checkpoint / 'adapter')!r})"
            ".merge_and_unload(), and give the folder in which you save it, its tokenizer beside it"
        )
    reason = "has neither policy/config.json nor config.json" if checkpoint.is_dir() else "no such folder"
    raise NoCheckpoint(f"CHECKPOINT: {checkpoint}: {reason}; give .../checkpoints/step-N or a model folder")


def model_of(path: Path) -> tuple[Path, Path | None]:
    """The model folder that a run, a checkpoint or a model folder means, and the run's configuration if it is of one.

    Raises:
        UserError: it is none of them, or a run without a complete checkpoint.
    """
    checkpoint = path
    if (path / CONFIG).is_file():
        newest, _ = find_newest_complete(path / "checkpoints")
        if newest is None:
            raise NoCheckpoint(f"CHECKPOINT: {path} is a run without a complete checkpoint")
        checkpoint = newest
    folder = policy_folder(checkpoint)
    # .../RUN/checkpoints/step-N/policy
    above = folder.resolve().parents
    config = above[2] / CONFIG if len(above) > 2 and above[1].name == "checkpoints" else None
    return folder, config if config is not None and config.is_file() else None


def chosen_splits(run: RunConfig, splits: Sequence[str], name: str = "--split") -> tuple[str, ...]:
    """The splits asked for, or all of the task's.

    Args:
        name: of the argument, for the message.

    Raises:
        UserError: the task has no such split.
    """
    from cluster.config.components import build_task

    known = build_task(run).splits
    for split in splits:
        if split not in known:
            raise UnknownName(f"{name}: unknown split {split!r}; {nearest(split, list(known))}")
    return tuple(splits) or tuple(known)
