"""Stop an update on every rank when a number of any rank is NaN or infinite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from learner.algorithms.records import Estimates, OldOutputs
from learner.engine.engine import NonFiniteError
from learner.maths.collective import Collective
from learner.models.kept_values import KeptOutput


def refuse_non_finite(found: Mapping[str, Sequence[Tensor]], world: Collective, where: str) -> None:
    """Check tensors of any shape, of all ranks.

    Args:
        found: by a name for messages, in any number of parts; the same names on every rank.
        where: start of the message.

    Raises:
        NonFiniteError: on every rank, if a value is not finite on one of them.
    """
    if not found:
        return
    counts = torch.tensor([sum(int((~part.isfinite()).sum()) for part in parts) for parts in found.values()])
    everyone = world.gather(counts[None]).tolist()
    for column, name in enumerate(found):
        bad = {rank: row[column] for rank, row in enumerate(everyone) if row[column]}
        if bad:
            raise NonFiniteError(f"{where}: {sum(bad.values())} {name} not finite, the first on rank {min(bad)}")


def looked_at(old: OldOutputs, mask: Tensor, with_logprobs: bool) -> dict[str, Sequence[Tensor]]:
    """What came out of the models before an update, at the sampled tokens of ``mask``, where it is read.

    Args:
        with_logprobs: whether the policy's were computed.
    """
    critic, found = old.critic, dict[str, Sequence[Tensor]]()
    if with_logprobs:
        found["log-probabilities of the policy are"] = [old.logprobs[mask]]
    if old.ref_logprobs is not None:
        found["log-probabilities of the starting policy are"] = [old.ref_logprobs[mask]]
    if old.masked_logprobs is not None:
        found["log-probabilities behind hidden prompts are"] = [old.masked_logprobs[mask]]
    if isinstance(critic, KeptOutput):
        found["values of the critic are"] = critic.kept.tensors
        if critic.end_values is not None:
            found["end values of the critic are"] = [critic.end_values]
    return found


def estimated(found: Estimates, mask: Tensor) -> dict[str, Sequence[Tensor]]:
    """Advantages and value targets of the sampled tokens."""
    columns: dict[str, Sequence[Tensor]] = {"advantages are": [found.advantages[mask]]}
    if found.kept_targets is not None:
        columns["value targets are"] = found.kept_targets.tensors
    elif found.value_targets is not None:
        columns["value targets are"] = [found.value_targets[mask]]
    return columns
