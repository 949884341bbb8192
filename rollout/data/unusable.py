"""Questions that a configured reward cannot use: told before a run, with file and line, or left out if the task allows.

A reward says so itself (:meth:`rollout.rewards.base.Reward.unusable`); none is called on a response.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import count

from rollout.component import ComponentSpec, UserError, import_object, resolve_class
from rollout.component.mistakes import Unscorable
from rollout.config import RewardConfig
from rollout.data.prompt_source import epoch_order
from rollout.data.prompts import all_splits, questions
from rollout.rewards import REWARDS
from rollout.rewards.base import Reward
from rollout.rewards.function import build_reward
from rollout.tasks.base import Example, Task
from rollout.trajectory import Prompt

MAX_ASKED = 20_000
"""Questions of one split that rewards are asked about, from the first on."""
MAX_DRAWN = 1_000_000
"""Draws of a run that are looked at, from the first on."""
MAX_SHOWN_CHARACTERS = 300
MAX_SHOWN = 3
"""Questions that one message names."""


@dataclass(frozen=True, slots=True)
class Objection:
    """What a reward has against one question.

    Attributes:
        fails: every call for it would raise, which counts towards ``reward.max_error_frac``; else no response is right.
    """

    example: Example
    reason: str
    fails: bool

    @property
    def is_of_the_answer(self) -> bool:
        """Whether there is an answer that is no use; that there is none is for the task to tell (its remarks)."""
        return self.example.reference is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """In which order a run takes training questions, and how many make a step."""

    seed: int
    shuffle: bool
    prompts_per_step: int
    num_steps: int

    def order(self, number: int) -> Iterator[int]:
        """Positions of the questions, epoch after epoch, without end."""
        for epoch in count():
            yield from epoch_order(number, self.seed, epoch) if self.shuffle else range(number)


def objecting_rewards(specs: Mapping[str, ComponentSpec]) -> dict[str, Reward]:
    """Those of the rewards, by their places in the configuration, that may have something against a question.

    Raises:
        UserError: one cannot be made.
    """
    found = {}
    for place, spec in specs.items():
        # The others are not made: a user's own may load a model, in a process that has no use for it.
        if ":" in spec.type and not isinstance(import_object(spec.type, f"{place}.type"), type):
            continue  # a function
        if resolve_class(spec, REWARDS, Reward, place).unusable is not Reward.unusable:
            found[place] = build_reward(spec, place)
    return found


def settle_unusable(
    task: Task, config: RewardConfig, rewards: Mapping[str, Reward], name: str, draws: Draws
) -> list[str]:
    """Ask the rewards about all questions that they will score; what they cannot use is left out if the task allows it.

    Args:
        rewards: of :func:`objecting_rewards`.
        name: of the task, as the configuration has it.

    Returns:
        Warnings: how many of the remaining questions a reward cannot use, and the first of them.

    Raises:
        UserError: a reward can use no question of a split, or would fail on more questions of a step than
            ``reward.max_error_frac`` allows, or too little is left.
    """
    problems, warnings = list[str](), list[str]()
    for split in all_splits(task, name) if rewards else ():
        asked = questions(task, split, name)[:MAX_ASKED]
        found = {place: _objections(rewards[place], asked, name) for place in _scoring(config, split, rewards)}
        decisive = [place for place in found if not _is_for_reports(config, split, place)]
        useless = [place for place in decisive if asked and len(found[place]) == len(asked)]
        if useless:  # it is not the rows that are wrong
            problems += [_told(place, found[place], len(asked), split) for place in useless]
            continue
        asked = _leave_out(task, split, asked, {place: found[place] for place in decisive})
        left = {example.example_id for example in asked}
        found = {place: [o for o in given if o.example.example_id in left] for place, given in found.items()}
        failing = {o.example.example_id for place in decisive for o in found[place] if o.fails}
        if split == "train" and (stop := _why_stop(config, draws, questions(task, split, name), failing)):
            first = next(place for place in decisive if any(o.fails for o in found[place]))
            problems.append(_told(first, [o for o in found[first] if o.fails], len(asked), split) + stop)
            continue
        for place, given in found.items():
            if with_answer := [objection for objection in given if objection.is_of_the_answer]:
                warnings.append(_told(place, with_answer, len(asked), split))
    if problems:
        raise UserError("\n".join(str(Unscorable(problem)) for problem in problems))
    return warnings


def _scoring(config: RewardConfig, split: str, rewards: Mapping[str, Reward]) -> list[str]:
    """Places of the rewards that score a split."""
    functions, gold = ([place for place in rewards if f".{group}." in place] for group in ("functions", "gold"))
    if split != "train":
        return gold if config.gold else functions
    if config.pseudo_labels is not None and config.gold:
        return gold
    return [*functions, *gold]


def _is_for_reports(config: RewardConfig, split: str, place: str) -> bool:
    """Whether nothing is lost but a clean score where a reward cannot be used: training goes on without it."""
    return split == "train" and (config.pseudo_labels is not None or ".gold." in place)


def _why_stop(config: RewardConfig, draws: Draws, examples: Sequence[Example], failing: Set[str]) -> str:
    """Where a run without staleness would stop because too many scores of one step fail; empty if it would not."""
    order, size, allowed = draws.order(len(examples)), draws.prompts_per_step, config.max_error_frac
    # A prompt without any score takes no place in a step; one that gets a score for failing does.
    takes_place = config.error_reward != "drop"
    num_drawn = 0
    for step in range(1, draws.num_steps + 1 if failing else 1):
        num_filled = num_failed = 0
        while num_filled < size and num_drawn < MAX_DRAWN:
            fails = examples[next(order)].example_id in failing
            num_drawn += 1
            num_failed += fails
            num_filled += takes_place or not fails
            if num_failed > allowed * max(size, num_failed):
                return (
                    f". The run would stop in step {step}, where it fails on {num_failed} prompts and more than "
                    f"reward.max_error_frac = {allowed:g} of {size} are not allowed; put them right, have them left "
                    "out (data.task.on_bad_row: reject, and require_answer for those without one), or allow more"
                )
    return ""


def _leave_out(
    task: Task, split: str, asked: Sequence[Example], found: Mapping[str, Sequence[Objection]]
) -> Sequence[Example]:
    """The questions that are left."""
    reasons = {
        objection.example.example_id: f"{place}: {objection.reason}"
        for place, given in found.items()
        for objection in given
        if objection.is_of_the_answer
    }
    if not reasons or not task.leave_out(split, reasons):
        return asked
    return [example for example in asked if example.example_id not in reasons]


def _objections(reward: Reward, asked: Sequence[Example], name: str) -> list[Objection]:
    found = []
    for example in asked:
        prompt = Prompt(
            prompt_id=example.example_id,
            messages=example.messages,
            token_ids=(),
            reference=example.reference,
            task=name,
            extra=example.extra,
        )
        try:
            reason, fails = reward.unusable(prompt), False
        except Exception as error:  # what a call would raise, whatever it is
            reason, fails = str(error) or type(error).__name__, True
        if reason is not None:
            found.append(Objection(example, _shortened(reason), fails))
    return found


def _told(place: str, given: Sequence[Objection], num_asked: int, split: str) -> str:
    """``reward.functions.0: cannot use any of the 4 questions of split 'train': tr.jsonl:1: ...``."""
    which = "any" if len(given) == num_asked else str(len(given))
    shown = "; ".join(f"{o.example.place or repr(o.example.example_id)}: {o.reason}" for o in given[:MAX_SHOWN])
    more = "; ..." if len(given) > MAX_SHOWN else ""
    return f"{place}: cannot use {which} of the {num_asked} questions of split {split!r}: {shown}{more}"


def _shortened(reason: str) -> str:
    """What a reward says, which may quote an answer of megabytes."""
    return reason if len(reason) <= MAX_SHOWN_CHARACTERS else f"{reason[:MAX_SHOWN_CHARACTERS]}…"
