"""What a rollout needs of an inference engine. ``vllm_engine.py`` and ``vllm_inline.py`` implement it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rollout.config import SamplingConfig
from rollout.sampling.weight_check import TensorFact
from rollout.trajectory import FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One finished generation: token ids, one log-probability a token, and the weight versions that sampled them."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    policy_version_min: int
    policy_version_max: int


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """What came of new weights.

    Attributes:
        refused: tensors that are not what left the learner; if there are any, the engine has its old weights.
        not_loaded: tensors and parameters that the engine's own loader left out; if there are any, the engine is
            paused for good.
        check_s: seconds that the comparison took.
    """

    refused: tuple[str, ...]
    not_loaded: tuple[str, ...]
    check_s: float


class EngineDeadError(RuntimeError):
    """An engine failed and computes nothing any more. Named as vLLM names it where its process is gone."""


class Engine(Protocol):
    """An inference engine with continuous batching, whose weights can be replaced while it runs."""

    async def generate(self, token_ids: tuple[int, ...], sampling: SamplingConfig, seed: int | None) -> Completion:
        """Sample one completion. ``seed`` fixes its random stream; None: the engine's own, or greedy."""
        ...

    async def score(self, token_ids: tuple[int, ...]) -> list[float]:
        """Log-probability of each token given those before it, length ``len(token_ids)``, first entry 0.0."""
        ...

    async def load_weights(self, weights: dict[str, Any], facts: Mapping[str, TensorFact], version: int) -> LoadOutcome:
        """Replace all weights by ``{name: numpy array}``, which have to be as ``facts`` say.

        Nothing is loaded if one tensor is not. Requests in flight go on with the new weights.
        """
        ...

    async def stats(self) -> dict[str, float]:
        """Counters of the engine itself: tokens generated so far, running and waiting requests, cache use."""
        ...

    async def shutdown(self) -> None:
        """Stop the engine and its child processes."""
        ...
