"""What the frozen starting policy says of a rank's rows, collected over micro-batches."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.batch import TrainBatch


class ReferenceColumns:
    """Outputs of the reference in the rows of the whole batch.

    Args:
        batch: of the rank.
        with_signals: whether entropies and the states at the ends are wanted, too.
    """

    def __init__(self, batch: TrainBatch, with_signals: bool) -> None:
        self.with_signals = with_signals
        self.logprobs = torch.zeros_like(batch.rewards)
        self.entropy = torch.zeros_like(batch.rewards) if with_signals else None
        self.end_states: Tensor | None = None

    def add(self, found: dict[str, Tensor], place: tuple[slice, slice], num_rows: int) -> None:
        """Take in the outputs of one micro-batch, which lies at ``place`` of the batch; of a placeholder 0 rows."""
        self.logprobs[place] = found["logprobs"][:num_rows]
        if self.entropy is None:
            return
        self.entropy[place] = found["entropy"][:num_rows]
        states = found["end_states"]
        if self.end_states is None:
            self.end_states = states.new_zeros(len(self.logprobs), states.shape[1])
        self.end_states[place[0]] = states[:num_rows]
