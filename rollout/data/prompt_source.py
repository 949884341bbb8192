"""The training prompts as one endless, deterministic sequence."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rollout.seeding import stream_seed
from rollout.trajectory import Prompt


def epoch_order(number: int, seed: int, epoch: int) -> list[int]:
    """The shuffled order of ``number`` prompts in an epoch."""
    # From the sorted order and not from the last epoch's, so that a resumed run needs no history.
    order = list(range(number))
    random.Random(stream_seed(seed, "", epoch, "order")).shuffle(order)
    return order


class PromptSource:
    """Epoch after epoch of the same prompts, each epoch in an order of its own. Position ``index`` needs no history.

    Args:
        prompts: at least one.
        seed: with the epoch it fixes the order.
        shuffle: False keeps the given order in every epoch.
    """

    def __init__(self, prompts: Sequence[Prompt], seed: int, shuffle: bool = True) -> None:
        if not prompts:
            raise ValueError("there are no training prompts")
        self._prompts = prompts
        self._seed = seed
        self._shuffle = shuffle
        self._order: list[int] = list(range(len(prompts)))
        self._order_epoch = -1

    def __len__(self) -> int:
        """Prompts of one epoch."""
        return len(self._prompts)

    def at(self, index: int) -> tuple[int, Prompt]:
        """Epoch (from 0) and prompt at position ``index`` (from 0)."""
        epoch, place = divmod(index, len(self._prompts))
        if self._shuffle and epoch != self._order_epoch:
            self._order = epoch_order(len(self._prompts), self._seed, epoch)
            self._order_epoch = epoch
        return epoch, self._prompts[self._order[place]]
