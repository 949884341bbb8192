"""Any order of calls on a ledger, right and wrong, against a dictionary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.ledger.balance import check_balance
from actors.ledger.errors import LedgerError
from actors.ledger.file import open_for_reading
from actors.ledger.ledger import Ledger
from actors.ledger.samples import Position
from rollout.trajectory import REPLACEMENT_STRIDE
from tests.actors.ledger.ledger_samples import PROMPTS, SIZE, admit, names, replacement, states


@dataclass
class Entry:
    """What the dictionary knows of one sample."""

    state: str = "in_flight"
    step: int | None = None


class LedgerMachine(RuleBasedStateMachine):
    """Any order of calls, right and wrong, on a ledger and on a dictionary that follows the rules in plain ways."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # commits wait for the disk, which is not what is tested here
        self.folder = TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.path = Path(self.folder.name) / "ledger.sqlite"
        self.ledger = Ledger(self.path, num_prompts=PROMPTS, samples_per_prompt=SIZE)
        self.groups: list[dict[str, Entry]] = []
        self.steps: list[set[str]] = []

    def teardown(self) -> None:
        self.ledger.close()
        with open_for_reading(self.path) as db:
            found = check_balance(db, PROMPTS, SIZE)
        assert (found.violations, found.num_lost, found.num_trained_twice) == ((), 0, 0)
        self.folder.cleanup()

    def samples(self, *states: str) -> list[tuple[str, Entry]]:
        """Names and entries of the samples in one of ``states``, or of all."""
        every = [item for group in self.groups for item in group.items()]
        return [(name, entry) for name, entry in every if not states or entry.state in states]

    def whole(self) -> list[dict[str, Entry]]:
        """Groups that may be trained on."""
        found = [{entry.state for entry in group.values()} for group in self.groups]
        return [
            group
            for group, states in zip(self.groups, found, strict=True)
            if {"ready"} <= states <= {"ready", "dropped"}
        ]

    def put(self, ids: set[str], state: str, step: int | None = None) -> None:
        for name, entry in self.samples():
            if name in ids:
                entry.state, entry.step = state, step

    @rule(pick=st.integers(0, 99))
    def admit(self, pick: int) -> None:
        pending = [i for i, group in enumerate(self.groups) if all(one.state == "pending" for one in group.values())]
        candidates = [*pending, len(self.groups)]
        index = candidates[pick % len(candidates)]
        admit(self.ledger, index)
        if index == len(self.groups):
            self.groups.append({})
        self.groups[index] = {name: Entry() for name in names(index)}

    @rule(ahead=st.integers(-9, 2))
    def admit_wrongly(self, ahead: int) -> None:
        index = len(self.groups) + ahead
        known = self.groups[index] if 0 <= index < len(self.groups) else {}
        if ahead != 0 and all(entry.state != "pending" for entry in known.values()):
            with pytest.raises(LedgerError):
                admit(self.ledger, index)

    @precondition(lambda self: self.samples("in_flight"))
    @rule(pick=st.integers(0, 99), again=st.booleans())
    def ready(self, pick: int, again: bool) -> None:
        candidates = self.samples("in_flight")
        name, entry = candidates[pick % len(candidates)]
        if again:
            self.ledger.reissue(name, "died")
        self.ledger.ready(name, 7)
        entry.state = "ready"

    @precondition(lambda self: self.samples("in_flight", "ready"))
    @rule(pick=st.integers(0, 99), is_replaced=st.booleans())
    def drop(self, pick: int, is_replaced: bool) -> None:
        candidates = self.samples("in_flight", "ready")
        name, entry = candidates[pick % len(candidates)]
        self.ledger.drop(name, "bad", len(self.steps) + 1, replacement(name) if is_replaced else "")
        entry.state, entry.step = "dropped", len(self.steps) + 1
        if is_replaced:
            next(group for group in self.groups if name in group)[replacement(name)] = Entry()

    @precondition(lambda self: self.samples("in_flight", "ready"))
    @rule(pick=st.integers(0, 99), other=st.integers(0, 99))
    def replace_by_a_known_one(self, pick: int, other: int) -> None:
        candidates = self.samples("in_flight", "ready")
        name, _ = candidates[pick % len(candidates)]
        known, _ = self.samples()[other % len(self.samples())]
        with pytest.raises(LedgerError):
            self.ledger.drop(name, "bad", len(self.steps) + 1, known)

    @precondition(lambda self: self.samples())
    @rule(pick=st.integers(0, 99), call=st.sampled_from(["reissue", "ready", "drop"]))
    def change_wrongly(self, pick: int, call: str) -> None:
        name, entry = self.samples()[pick % len(self.samples())]
        allowed = ("in_flight", "ready") if call == "drop" else ("in_flight",)
        if entry.state not in allowed:
            with pytest.raises(LedgerError):
                if call == "reissue":
                    self.ledger.reissue(name, "died")
                elif call == "ready":
                    self.ledger.ready(name, 7)
                else:
                    self.ledger.drop(name, "bad", 1)

    @precondition(lambda self: self.samples("in_flight", "ready"))
    @rule(most=st.integers(0, 3))
    def commit(self, most: int) -> None:
        """Finish what is in flight and train on the first few groups."""
        for name, entry in self.samples("in_flight"):
            self.ledger.ready(name, 7)
            entry.state = "ready"
        chosen = [item for group in self.whole()[:most] for item in group.items()]
        ids = {name for name, entry in chosen if entry.state == "ready"}
        self.steps.append(ids)
        for _ in range(2):
            self.ledger.commit_step(len(self.steps), sorted(ids))
        self.put(ids, "trained", len(self.steps))

    @precondition(lambda self: self.samples())
    @rule(picks=st.sets(st.integers(0, 99), min_size=1, max_size=3), ahead=st.integers(-1, 2))
    def commit_anything(self, picks: set[int], ahead: int) -> None:
        """Samples at random: right only if they happen to be all of what groups have to be trained on."""
        ids = {self.samples()[pick % len(self.samples())][0] for pick in picks}
        step = len(self.steps) + ahead
        ready = {name for group in self.whole() if ids & set(group) for name in group if group[name].state == "ready"}
        if 0 < step <= len(self.steps) and self.steps[step - 1] == ids:
            self.ledger.commit_step(step, sorted(ids))
        elif ahead == 1 and ids == ready:
            self.ledger.commit_step(step, sorted(ids))
            self.steps.append(ids)
            self.put(ids, "trained", step)
        else:
            with pytest.raises(LedgerError):
                self.ledger.commit_step(step, sorted(ids))

    @rule(back=st.integers(-1, 2))
    def mark(self, back: int) -> None:
        step = len(self.steps) - back
        if 0 <= step <= len(self.steps):
            self.ledger.mark_checkpoint(step)
        else:
            with pytest.raises(LedgerError):
                self.ledger.mark_checkpoint(step)

    @precondition(lambda self: self.steps)
    @rule(back=st.integers(-1, 2))
    def rollback(self, back: int) -> None:
        step = len(self.steps) - back
        if not 0 <= step <= len(self.steps):
            with pytest.raises(LedgerError):
                self.ledger.rollback(step)
            return
        moved = 0
        for group in self.groups:
            if any(entry.step is None or entry.step > step for entry in group.values()):
                for name in [name for name in group if int(name.rpartition("#")[2]) >= REPLACEMENT_STRIDE]:
                    del group[name]
                moved += sum(entry.state != "pending" for entry in group.values())
                self.put(set(group), "pending")
        del self.steps[step:]
        assert self.ledger.rollback(step) == moved

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.path, num_prompts=PROMPTS, samples_per_prompt=SIZE)

    @invariant()
    def agrees(self) -> None:
        expected = {name: (entry.state, entry.step) for group in self.groups for name, entry in group.items()}
        assert states(self.path) == expected
        unfinished = [
            index
            for index, group in enumerate(self.groups)
            if any(entry.state not in ("trained", "dropped") for entry in group.values())
        ]
        assert self.ledger.position() == Position(len(self.groups), tuple(unfinished))


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedgerMachine = pytest.mark.slow(TestLedgerMachine)
