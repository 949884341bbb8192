"""What a rollout needs of an inference engine. The only implementation outside the tests is ``vllm_engine.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from rollout.config import SamplingConfig
from rollout.trajectory import FinishReason


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished generation: token ids, one log-probability a token, and the weight versions that sampled them."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    policy_version_min: int
    policy_version_max: int


class Engine(Protocol):
    """An inference engine with continuous batching, whose weights can be replaced while it runs."""

    async def generate(self, token_ids: tuple[int, ...], sampling: SamplingConfig, seed: int | None) -> Completion:
        """Sample one completion. ``seed`` fixes its random stream; None with temperature 0 (greedy)."""
        ...

    async def score(self, token_ids: tuple[int, ...]) -> list[float]:
        """Log-probability of each token given those before it, length ``len(token_ids)``, first entry 0.0."""
        ...

    async def load_weights(self, weights: dict[str, Any], version: int) -> None:
        """Replace all weights by ``{name: numpy array}``. Requests in flight go on with the new weights."""
        ...

    async def stats(self) -> dict[str, float]:
        """Counters of the engine itself: tokens generated so far, running and waiting requests, cache use."""
        ...

    async def shutdown(self) -> None:
        """Stop the engine and its child processes."""
        ...
