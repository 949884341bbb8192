"""Numbers of every sampled token that outlast a micro-batch, kept where there is room: packed, in host memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from learner.maths.logprobs import scatter_to_tokens
from learner.models.spec import CriticOutput, Place

HOST = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class KeptPart:
    """One micro-batch.

    Attributes:
        place: its rows and columns in [batch seq].
        mask: [rows columns] bool, the sampled tokens.
        values: [n ...] of these tokens, in host memory.
    """

    place: Place
    mask: Tensor
    values: Tensor


class KeptValues:
    """[batch seq ...] in parts, 0 outside of sampled tokens; a part is on the device only while it is looked at.

    A value distribution is hundreds of numbers for each token: of 64 responses of 32,768 tokens 200 quantiles are
    1.7 GB. Without prompts, padding and heads, and in host memory, it costs the device one micro-batch.

    Args:
        shape: batch and seq.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.axes: tuple[int, ...] = ()
        self.dtype = torch.float32
        self._parts: dict[int, KeptPart] = {}

    @property
    def places(self) -> list[Place]:
        """Rows and columns of every part, rows ascending."""
        return [part.place for _, part in sorted(self._parts.items())]

    @property
    def tensors(self) -> list[Tensor]:
        """[n ...] of every part, in host memory, rows ascending."""
        return [part.values for _, part in sorted(self._parts.items())]

    def add(self, place: Place, mask: Tensor, values: Tensor) -> None:
        """Take in [n ...] of the tokens ``mask`` [rows columns] of one micro-batch; without rows only their form."""
        self.axes, self.dtype = tuple(values.shape[1:]), values.dtype
        if place[0].stop > place[0].start:
            self._parts[place[0].start] = KeptPart(place, mask, values.detach().to(HOST))

    def at(self, place: Place) -> Tensor:
        """[rows columns ...] of one part, on the device of its mask.

        Raises:
            KeyError: no part has these rows.
        """
        part = self._parts[place[0].start]
        if part.place != place:
            raise KeyError(f"kept are rows and columns {part.place}, asked for {place}")
        return scatter_to_tokens(part.values.to(part.mask.device), part.mask)

    def whole(self) -> Tensor:
        """[batch seq ...] of all parts at once: as much memory as parts are there to save."""
        parts = [part for _, part in sorted(self._parts.items())]
        device = parts[0].mask.device if parts else HOST
        found = torch.zeros((*self.shape, *self.axes), dtype=self.dtype, device=device)
        for part in parts:
            found[part.place] = self.at(part.place)
        return found

    def at_columns(self, columns: Tensor) -> Tensor:
        """[batch ...], of each row the values in one column, [batch] int64; 0 where that is no sampled token."""
        found = torch.zeros((self.shape[0], *self.axes), dtype=self.dtype, device=columns.device)
        for part in self._parts.values():
            chosen = columns[part.place[0]]
            rows = torch.arange(len(chosen), device=chosen.device)
            is_kept = part.mask[rows, chosen]
            numbers = part.mask.flatten().cumsum(0).sub(1).reshape(part.mask.shape)[rows, chosen][is_kept]
            found[part.place[0].start + rows[is_kept]] = part.values[numbers.to(HOST)].to(found.device)
        return found


class KeptOutput(CriticOutput):
    """The output of a critic over a batch whose value distribution is kept in parts.

    Attributes:
        kept: the quantiles, [batch seq head quantile]. ``quantile_values`` puts them together anew each time it is
            read; what is to be fast or to fit looks at one part after another, by :meth:`cut`.
    """

    __slots__ = ("kept",)
    kept: KeptValues

    def __init__(self, kept: KeptValues, columns: Mapping[str, Tensor]) -> None:
        for field in fields(CriticOutput):
            if field.name != "quantile_values":
                object.__setattr__(self, field.name, columns.get(field.name))
        object.__setattr__(self, "kept", kept)

    @property
    def quantile_values(self) -> Tensor:
        """[batch seq head quantile], put together."""
        return self.kept.whole()

    @property
    def num_quantiles(self) -> int:
        """See :class:`CriticOutput`."""
        return self.kept.axes[-1]

    @property
    def num_heads(self) -> int:
        """See :class:`CriticOutput`."""
        return self.kept.axes[-2]

    @property
    def places(self) -> list[Place]:
        """See :class:`CriticOutput`."""
        return self.kept.places

    def cut(self, place: Place) -> CriticOutput:
        """See :class:`CriticOutput`."""
        values = self.kept.at(place) if place in self.places else self.kept.whole()[place]
        return CriticOutput.of({"quantile_values": values, **self._columns(place)})

    def quantiles_at(self, columns: Tensor) -> Tensor:
        """See :class:`CriticOutput`."""
        return self.kept.at_columns(columns)
