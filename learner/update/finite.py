"""Stop an update on every rank when a number of any rank is NaN or infinite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from learner.engine.engine import NonFiniteError
from learner.maths.collective import Collective


def refuse_non_finite(found: Mapping[str, Tensor], world: Collective, where: str) -> None:
    """Check tensors of any shape, of all ranks.

    Args:
        found: by a name for messages; the same names on every rank.
        where: start of the message.

    Raises:
        NonFiniteError: on every rank, if a value is not finite on one of them.
    """
    if not found:
        return
    counts = torch.stack([(~values.isfinite()).sum() for values in found.values()])
    everyone = world.gather(counts[None]).tolist()
    for column, name in enumerate(found):
        bad = {rank: row[column] for rank, row in enumerate(everyone) if row[column]}
        if bad:
            raise NonFiniteError(f"{where}: {sum(bad.values())} {name} not finite, the first on rank {min(bad)}")
