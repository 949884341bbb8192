"""Calls one reward function: deadline, retries, validation, cache. Whatever the function does becomes an outcome."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from rollout.config import RewardConfig, longest_pause_s
from rollout.rewards.base import Abstain, InvalidScore, Reward, RewardUnavailable
from rollout.rewards.errors import RewardErrorKind, error_kind, one_line
from rollout.scoring.threads import RewardThreads
from rollout.seeding import stream
from rollout.trajectory import Prompt, Trajectory
from rollout.unawaited import forget

CACHE_ENTRIES = 50_000
"""Scores that are remembered of one reward; the least recently used one goes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one reward function had to say about one trajectory.

    Attributes:
        score: the valid score, or None.
        abstained: why the reward abstained, or None if it did not.
        error: one line on what went wrong, empty if nothing did.
        error_kind: whose fault it was, None if nobody's.
        num_retries: how often the function was called again.
        cached: whether it was not called at all.
    """

    score: float | None = None
    abstained: str | None = None
    error: str = ""
    error_kind: RewardErrorKind | None = None
    num_retries: int = 0
    cached: bool = False


class GuardedReward:
    """Calls of one reward function.

    Args:
        name: of the reward, for messages.
        reward: the function.
        config: time-out and retries.
        run_seed: names the random stream of the pauses. Scores do not depend on it.
        threads: where a plain ``def`` runs.
    """

    def __init__(self, name: str, reward: Reward, config: RewardConfig, run_seed: int, threads: RewardThreads) -> None:
        self.name, self.reward = name, reward
        self._config = config
        self._run_seed = run_seed
        self._threads = threads
        self._cache: OrderedDict[bytes, float] = OrderedDict()

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> Part:
        """The reward's verdict. Raises nothing that the reward function raises."""
        # Only what is both repeatable and costly is remembered; the reward itself says so.
        key = _content(prompt, trajectory) if self.reward.deterministic else b""
        if key in self._cache:
            self._cache.move_to_end(key)
            return Part(score=self._cache[key], cached=True)
        part = await self._with_retries(prompt, trajectory)
        if self.reward.deterministic and part.score is not None:
            self._cache[key] = part.score
            if len(self._cache) > CACHE_ENTRIES:
                self._cache.popitem(last=False)
        return part

    async def _with_retries(self, prompt: Prompt, trajectory: Trajectory) -> Part:
        began, pauses = time.monotonic(), None
        for retry in range(self._config.max_retries + 1):
            part, least_pause_s = await self._attempt(prompt, trajectory)
            part = replace(part, num_retries=retry) if retry else part
            if part.error_kind is not RewardErrorKind.INFRASTRUCTURE or retry == self._config.max_retries:
                break
            name = f"reward.pause.{self.name}"
            pauses = pauses or stream(self._run_seed, prompt.prompt_id, trajectory.sample_index, name)
            pause = max(longest_pause_s(retry) * pauses.uniform(0.5, 1.0), least_pause_s)
            # A pause that ends after the deadline would only delay the verdict.
            if time.monotonic() + pause - began > self._config.deadline_s:
                break
            await asyncio.sleep(pause)
        return part

    async def _attempt(self, prompt: Prompt, trajectory: Trajectory) -> tuple[Part, float]:
        """One call; with the shortest pause before the next one, in seconds."""
        task = asyncio.ensure_future(self._run(prompt, trajectory))
        try:
            # `wait` and not `wait_for`, which waits for the cancelled call: a reward may swallow the cancellation.
            done, _ = await asyncio.wait({task}, timeout=self._config.timeout_s)
        finally:
            task.cancel()  # not waited for: a reward may refuse to be cancelled
            task.add_done_callback(forget)
        if not done:
            late = f"no score within {self._config.timeout_s:g} s"
            return Part(error=late, error_kind=RewardErrorKind.INFRASTRUCTURE), 0.0
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Abstain):
            return Part(abstained=str(error) or "no reason given"), 0.0
        if error is not None:
            least_pause_s = error.retry_after_s if isinstance(error, RewardUnavailable) else 0.0
            return Part(error=one_line(error), error_kind=error_kind(error)), least_pause_s
        if task.cancelled():
            return Part(error="the reward cancelled itself", error_kind=RewardErrorKind.CODE), 0.0
        return Part(score=task.result()), 0.0

    async def _run(self, prompt: Prompt, trajectory: Trajectory) -> float:
        try:
            if self.reward.is_async:
                value: Any = await self.reward(prompt, trajectory)  # type: ignore[misc]
            else:
                value = await self._threads.run(self.reward, prompt, trajectory)
            if inspect.isawaitable(value):  # such as a plain function that returns a coroutine
                value = await value
        except (SystemExit, KeyboardInterrupt) as stop:  # would end the whole worker
            raise RuntimeError(f"the reward raised {type(stop).__name__}({stop})") from None
        return self._valid(value)

    def _valid(self, value: Any) -> float:
        """``value`` as a float.

        Raises:
            InvalidScore: it is not a finite number within the declared range.
        """
        item = getattr(value, "item", None)
        if item is not None and getattr(value, "size", None) == 1:  # a NumPy scalar or an array of one number
            value = item()
        # True is an int to Python; as a score it is most likely a comparison that was meant to be converted.
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            shown = f"{value!r}"[:100]
            raise InvalidScore(f"reward {self.name!r} returned {shown}, which is not a finite number")
        bounds = self.reward.config.score_range
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            low, high = bounds
            raise InvalidScore(f"reward {self.name!r} returned {value:g}, outside its score_range [{low:g}, {high:g}]")
        return float(value)


def _content(prompt: Prompt, trajectory: Trajectory) -> bytes:
    """What a deterministic reward's score depends on, as a short key."""
    conversation = json.dumps(trajectory.conversation)
    # The prompt's id stands for its messages and columns, which are the same all through a run.
    parts = [prompt.prompt_id, str(prompt.reference), trajectory.finish_reason, trajectory.response_text, conversation]
    text = "\x1f".join(parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
