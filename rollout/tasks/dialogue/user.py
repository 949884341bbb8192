"""The simulated user: follows a script, answers questions, and says what became of the conversation."""

from __future__ import annotations

import re

from rollout.environment import Observation
from rollout.tasks.dialogue.domains import DOMAINS
from rollout.tasks.dialogue.script import Script
from rollout.trajectory import Message, Outcome, Prompt

WITHHOLDS, NOT_UNDERSTOOD = "hm", "sorry?"
BOOKING = re.compile(r"book (\S) (\S) (\S)")


class SimulatedUser:
    """One user, as an environment. What it says depends on the script and the clerk's turns alone.

    A turn that is ``book`` and one code for each slot, and nothing else, is a booking; it ends the conversation unless
    the user has yet to change their mind. Any other turn that holds a slot's question is answered (the first question
    of several), and everything else is answered with ``sorry?``.

    Args:
        script: what the user wants and does.
        max_turns: after that many turns of the clerk the user leaves.
    """

    def __init__(self, script: Script, max_turns: int) -> None:
        self.script = script
        self._max_turns = max_turns
        self._slots = DOMAINS[script.domain].slots
        self._wishes = list(script.values)
        self._held_back = list(script.withheld)
        self._slips = list(script.slips)
        self._will_change = script.change
        self._num_turns = 0
        self._answered: set[int] = set()
        self._record: tuple[str, ...] = ()

    async def reset(self, prompt: Prompt, seed: int) -> tuple[Message, ...]:
        """Nothing to say beyond the question, and nothing to draw: the script comes with the prompt."""
        return ()

    async def step(self, response: str) -> Observation:
        """Hear one turn of the clerk."""
        answer = self.hear(response)
        return Observation(done=True) if answer is None else Observation(({"role": "user", "content": answer},))

    def hear(self, response: str) -> str | None:
        """What the user says to a turn of the clerk; None when the conversation is over."""
        self._num_turns += 1
        text = response.strip()
        # The whole turn: a booking among other words would reward a policy that says everything.
        booking = BOOKING.fullmatch(text)
        answer = self._look_at(booking.groups()) if booking else self._answer(text)
        return None if self._num_turns >= self._max_turns else answer

    def _look_at(self, record: tuple[str, ...]) -> str | None:
        self._record = record
        if self._will_change is None:
            return None
        (slot, word), self._will_change = self._will_change, None
        self._wishes[slot] = word
        return f"no {word}"

    def _answer(self, text: str) -> str:
        found = [(text.find(slot.question), index) for index, slot in enumerate(self._slots) if slot.question in text]
        if not found:
            return NOT_UNDERSTOOD
        index = min(found)[1]
        if self._held_back[index]:
            self._held_back[index] = False
            return WITHHOLDS
        # After the withheld turn has returned: a question that got no value does not count as asked.
        self._answered.add(index)
        slip, self._slips[index] = self._slips[index], ""
        return f"{slip} no {self._wishes[index]}" if slip else self._wishes[index]

    def outcome(self) -> Outcome:
        """Task, ask and goal completion (``tcr``, ``acr``, ``gcr``, each 0 to 1) of the conversation so far.

        The goal is what the script's user wishes for in the end, and the record the last booking; without one nothing
        of the goal is completed. A required slot counts as asked for once a question for it was answered with its
        value: not when the user withheld the value and was not asked again.
        """
        goal = self.script.final_record
        right = sum(code == wish for code, wish in zip(self._record, goal, strict=False))
        asked = [index for index in self.script.required if index in self._answered]
        return Outcome(
            metrics={
                "tcr": float(self._record == goal),
                "acr": len(asked) / len(self.script.required),
                "gcr": right / len(goal),
            },
            facts={
                "domain": self.script.domain,
                "goal": " ".join(goal),
                "record": " ".join(self._record),
                "asked": [self._slots[index].name for index in asked],
                "num_turns": self._num_turns,
            },
        )

    async def close(self) -> None:
        """Nothing is held."""
