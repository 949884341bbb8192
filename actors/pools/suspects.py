"""Which prompt kills rollout workers? A worker dies with many requests open, and only one of them may be to blame."""

from __future__ import annotations

from collections.abc import Collection

from actors.faults import TooManyQuarantined


class Suspects:
    """Counts, for each prompt, the rollout workers that died or hung while it was open.

    A prompt that was open at two deaths is set aside (quarantined) if no other was; where several were, each of them is
    sampled *alone* from then on, and the one under which a worker dies once more is set aside. A prompt that finishes
    alone is cleared. So a prompt that kills workers is found, and those that were merely beside it are kept.

    Args:
        max_quarantined: prompts set aside above which the run is stopped.
    """

    def __init__(self, max_quarantined: int) -> None:
        self._max_quarantined = max_quarantined
        self._strikes: dict[str, int] = {}
        self.quarantined: dict[str, str] = {}

    def strike(self, prompt_ids: Collection[str], cause: str) -> list[str]:
        """A worker was lost with these prompts open; returns the prompts that are quarantined for it.

        Raises:
            TooManyQuarantined: that is one too many.
        """
        for prompt_id in prompt_ids:
            self._strikes[prompt_id] = self._strikes.get(prompt_id, 0) + 1
        repeated = [prompt_id for prompt_id in prompt_ids if self._strikes[prompt_id] >= 2]
        return [self.quarantine(prompt_id, cause) for prompt_id in repeated] if len(repeated) == 1 else []

    def quarantine(self, prompt_id: str, cause: str) -> str:
        """Set one prompt aside; returns its id.

        Raises:
            TooManyQuarantined: that is one too many.
        """
        self.quarantined[prompt_id] = f"quarantined: {cause}"
        self._strikes.pop(prompt_id, None)
        if len(self.quarantined) > self._max_quarantined:
            named = ", ".join(list(self.quarantined)[:8])
            raise TooManyQuarantined(
                f"{len(self.quarantined)} prompts had to be set aside, recovery.max_quarantined_prompts allows "
                f"{self._max_quarantined} ({named}); the last: {cause}"
            )
        return prompt_id

    def must_be_alone(self, prompt_id: str) -> bool:
        """Whether the prompt may only be sampled with nothing else on the same worker."""
        return self._strikes.get(prompt_id, 0) >= 2

    def finished_alone(self, prompt_id: str) -> None:
        """The prompt did no harm."""
        self._strikes.pop(prompt_id, None)
