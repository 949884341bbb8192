"""Which trajectories a judge that is trusted looks at again: random shares, the same in whichever process asks."""

from __future__ import annotations

from rollout.seeding import stream


def is_rechecked(run_seed: int, prompt_id: str, sample_index: int, share: float) -> bool:
    """Whether this trajectory belongs to the random ``share`` (0 to 1) of all; it does in every larger share too."""
    return stream(run_seed, prompt_id, sample_index, "recheck").random() < share


def is_labelled(run_seed: int, prompt_id: str, sample_index: int, share: float) -> bool:
    """Whether training may see this trajectory's true score; a draw of its own, independent of :func:`is_rechecked`."""
    return stream(run_seed, prompt_id, sample_index, "gold label").random() < share
