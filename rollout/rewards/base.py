"""What a reward function is, and what it may raise."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Awaitable

from pydantic import Field, field_validator

from rollout.component import Component, StrictModel
from rollout.trajectory import Prompt, Trajectory


class Abstain(Exception):
    """Raised by a reward that cannot judge a response: ``raise Abstain("no test covers this function")``.

    The trajectory is left out of training and counted in ``reward/num_abstained``. It is no error.
    """


class RewardUnavailable(Exception):
    """Raised by a reward whose server or resource does not work at the moment: the call is made again, after a pause.

    Args:
        reason: what does not work.
        retry_after_s: shortest pause before the next call, in seconds, if the server has named one.
    """

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class InvalidScore(ValueError):
    """What came back is not a score. Not called again: what lies once may lie twice, unnoticed."""


class Reward(Component):
    """Scores one trajectory. May be slow and may raise: the reward service counts and contains failures."""

    deterministic: bool = False
    """Whether the score follows from the prompt, what was said and the finish reason alone and is costly enough
    to be remembered. Set it in the class, or in the constructor."""

    class Config(StrictModel):
        """Options every reward has."""

        weight: float = Field(1.0, description="Factor of this reward in the sum.")
        score_range: tuple[float, float] | None = Field(
            None, description="Lowest and highest score that the reward may return; others count as invalid."
        )

        @field_validator("score_range")
        @classmethod
        def _ordered(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
            if bounds is not None and bounds[0] >= bounds[1]:
                raise ValueError(f"must be [lowest, highest], got [{bounds[0]:g}, {bounds[1]:g}]")
            return bounds

    @property
    def is_async(self) -> bool:
        """Whether calls return at once with something to await."""
        return inspect.iscoroutinefunction(type(self).__call__)

    @abstractmethod
    def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float | Awaitable[float]:
        """The clean score, a finite float; higher is better.

        An ``async def`` runs on the worker's event loop and must not block it. A plain ``def`` runs in a thread of
        its own and may wait, but several calls run at the same time.

        Raises:
            Abstain: the response cannot be judged.
            RewardUnavailable: the call should be made again. So do connection errors, time-outs and HTTP 5xx or 429.
            Exception: anything else is an error of the reward's code.
        """

    def unusable(self, prompt: Prompt) -> str | None:
        """Why no response to a prompt can be right for this reward, in a few words; None if nothing speaks against it.

        Asked before a run, of each question (whose ``token_ids`` are empty then), so that a reference that the reward
        cannot use is told with its file and line. It must be quick and call nothing that costs; what cannot be told for
        certain is no objection. One that needs no reference has nothing to say, which is the default.

        Raises:
            Exception: what every call for this prompt raises.
        """
        return None

    def read_answer(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        """What the reward takes for the response's answer, for reports; None if there is none or it looks for none."""
        return None

    def answer_key(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        """What the response answers, in one form for all notations of it: responses to one prompt with equal keys must
        have equal clean scores. Empty if there is no answer, and None if the reward looks at more than an answer; then
        the whole text is the key.
        """
        return self.read_answer(prompt, trajectory)

    async def close(self) -> None:
        """Give up connections and processes, where the reward has any."""
