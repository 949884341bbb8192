"""What an update keeps of the critic as it was before: outputs by token, and passes whose gradient is still to come."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from learner.algorithms.base import Algorithm
from learner.batch import TrainBatch
from learner.maths.calibration import head_disagreement
from learner.maths.logprobs import scatter_to_tokens
from learner.models.categorical import BIN_LOGITS
from learner.models.kept_values import KeptOutput, KeptValues
from learner.models.spec import END_VALUES

QUANTILES = "quantile_values"


class OldCriticColumns:
    """Puts the outputs of a rank's micro-batches together; of the quantiles each part stays by itself, in host memory.

    Heads are kept only for an algorithm that looks at them. Else their mean is, in the form of one head.

    Args:
        batch: this rank's rows.
        algorithm: says what it reads.
        shown: rows of which all heads are kept in any case, for people to look at.

    Attributes:
        shown_heads: [token head quantile] of the sampled tokens of each of these rows.
    """

    def __init__(self, batch: TrainBatch, algorithm: Algorithm, shown: Collection[int] = ()) -> None:
        config = algorithm.critic_config
        assert config is not None
        self._batch, self._keeps_heads = batch, algorithm.needs_old_heads or config.num_heads == 1
        self._is_sorted = config.monotonicity != "none"
        self._columns: dict[str, Tensor] = {}
        self._kept = KeptValues(batch.rewards.shape)
        self._shown = frozenset(shown)
        self.shown_heads: dict[int, Tensor] = {}

    def add(self, outputs: dict[str, Tensor], micro: TrainBatch, place: tuple[slice, slice], num_rows: int) -> None:
        """Take in the outputs of one micro-batch, which lies at ``place`` of the batch; of a placeholder 0 rows."""
        found = {name: value.detach() for name, value in outputs.items() if name != BIN_LOGITS}
        heads = found.pop(QUANTILES)
        heads = heads[micro.action_mask] if heads.dim() == 4 else heads
        self._show(heads, micro, place[0].start, num_rows)
        if not self._keeps_heads:
            heads = heads if self._is_sorted else heads.sort(dim=-1).values
            found["head_disagreement"] = scatter_to_tokens(head_disagreement(heads), micro.action_mask)
            heads = heads.mean(dim=-2, keepdim=True)
        self._kept.add(place, micro.action_mask, heads)
        for name, value in found.items():
            by_token = name != END_VALUES
            shape = (*self._batch.rewards.shape, *value.shape[2:]) if by_token else (len(self._batch), *value.shape[1:])
            column = self._columns.setdefault(name, value.new_zeros(shape))
            column[place if by_token else place[0]] = value[:num_rows]

    def _show(self, heads: Tensor, micro: TrainBatch, first_row: int, num_rows: int) -> None:
        """Keep the rows to be shown of [token head quantile] of one micro-batch."""
        if self._shown.isdisjoint(range(first_row, first_row + num_rows)):
            return
        of_rows = heads.split(micro.action_mask.sum(dim=1).tolist())
        for row, of_row in enumerate(of_rows[:num_rows], first_row):
            if row in self._shown:
                self.shown_heads[row] = of_row.clone()

    def output(self) -> KeptOutput:
        """All of it, aligned to the batch."""
        return KeptOutput(self._kept, self._columns)


class KeptPasses:
    """Forward passes of the critic from before the update that its first optimiser step goes backward through.

    Until the first step the weights are what they were, so the step's own forward pass would give the same numbers. The
    step's first micro-batches are kept, as many as fit into the budget of one, so that no more activations are held
    than by a full micro-batch. A critic that is asked for more in training (noise, a flow's targets) is run again.

    Args:
        number: micro-batches to keep.
        inputs: further arguments of the critic's forward pass in training, by name.
    """

    REPEATABLE = frozenset({"packed", "end_positions"})

    def __init__(self, number: int, inputs: frozenset[str]) -> None:
        self.number = number if inputs <= self.REPEATABLE else 0
        self.packed = "packed" in inputs
        self._outputs: dict[int, dict[str, Tensor]] = {}

    def put(self, index: int, outputs: dict[str, Tensor]) -> None:
        """Keep the outputs of one micro-batch, with their graph."""
        self._outputs[index] = outputs

    def take(self, index: int) -> dict[str, Tensor] | None:
        """Hand over the outputs of one micro-batch, once; None if they were not kept."""
        return self._outputs.pop(index, None)


def kept_passes(algorithm: Algorithm, placeholder: TrainBatch, step: int, number: int) -> KeptPasses:
    """What of the first optimiser step can be kept, if ``number`` micro-batches fit into memory; same on every rank."""
    names = frozenset(algorithm.critic_inputs(placeholder, None, step))
    same_ends = algorithm.needs_end_values == ("end_positions" in names)
    return KeptPasses(number if same_ends else 0, names)
