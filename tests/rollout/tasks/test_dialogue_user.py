"""The simulated user: what it says to what, its metrics, and that nothing a policy says disturbs it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.tasks.dialogue.clerk import Clerk, Rule
from rollout.tasks.dialogue.domains import DOMAINS
from rollout.tasks.dialogue.script import Script, UserConfig, draw_script
from rollout.tasks.dialogue.task import MAX_TURNS
from rollout.tasks.dialogue.user import NOT_UNDERSTOOD, WITHHOLDS, SimulatedUser
from rollout.trajectory import Prompt

NOTHING = (False, False, False)
PLAIN = Script(
    domain="transport",
    opening="trip",
    given=False,
    values=("rome", "mon", "two"),
    withheld=NOTHING,
    slips=("", "", ""),
    change=None,
)
DIFFICULT = UserConfig(give_prob=0.5, withhold_prob=0.5, correct_prob=0.5, change_prob=0.5)
PROMPT = Prompt(prompt_id="p", messages=(), token_ids=(1,), reference=None, task="dialogue")


def talk(script: Script, *turns: str, max_turns: int = MAX_TURNS) -> tuple[list[str | None], SimulatedUser]:
    """What the user says to each turn, and the user."""
    user = SimulatedUser(script, max_turns)
    return [user.hear(turn) for turn in turns], user


def served_by(script: Script, clerk: Clerk) -> tuple[SimulatedUser, int]:
    """The user after the whole conversation with a clerk, and the number of the clerk's turns."""
    user, heard, num_turns = SimulatedUser(script, MAX_TURNS), script.first_message, 0
    while True:
        num_turns += 1
        answer = user.hear(clerk.reply(heard))
        if answer is None:
            return user, num_turns
        heard = answer


class TestWhatItSays:
    def test_plain(self) -> None:
        said, user = talk(PLAIN, "where?", "day?", "seats?", "book R 1 2")
        assert said == ["rome", "mon", "two", None]
        assert user.outcome().metrics == {"tcr": 1.0, "acr": 1.0, "gcr": 1.0}
        assert user.outcome().facts == {
            "domain": "transport",
            "goal": "R 1 2",
            "record": "R 1 2",
            "asked": ["place", "day", "seats"],
            "num_turns": 4,
        }

    def test_it_withholds_once(self) -> None:
        said, _ = talk(replace(PLAIN, withheld=(False, True, False)), "day?", "where?", "day?", "day?")
        assert said == [WITHHOLDS, "rome", "mon", "mon"]

    def test_it_corrects_itself_once(self) -> None:
        said, _ = talk(replace(PLAIN, slips=("", "", "six")), "seats?", "seats?", "day?")
        assert said == ["six no two", "two", "mon"]

    def test_it_withholds_and_then_corrects_itself(self) -> None:
        said, _ = talk(replace(PLAIN, withheld=(False, True, False), slips=("", "sun", "")), "day?", "day?")
        assert said == [WITHHOLDS, "sun no mon"]

    def test_it_changes_its_mind_at_the_first_booking(self) -> None:
        script = replace(PLAIN, change=(1, "fri"))
        said, user = talk(script, "day?", "book R 1 2", "day?", "book R 5 2")
        assert said == ["mon", "no fri", "fri", None]
        assert user.outcome().metrics == {"tcr": 1.0, "acr": pytest.approx(1 / 3), "gcr": 1.0}
        _, stubborn = talk(script, "book R 1 2", "book R 1 2")
        assert stubborn.outcome().metrics == {"tcr": 0.0, "acr": 0.0, "gcr": pytest.approx(2 / 3)}

    def test_what_the_opening_gives_need_not_be_asked_for(self) -> None:
        script = replace(PLAIN, given=True)
        assert (script.first_message, script.required) == ("trip rome", (1, 2))
        _, user = talk(script, "day?", "seats?", "book R 1 2")
        assert user.outcome().metrics["acr"] == 1.0

    def test_the_first_question_of_several_is_answered(self) -> None:
        said, user = talk(PLAIN, "which seats? and what day?", "day?seats?")
        assert said == ["two", "mon"]
        assert user.outcome().facts["asked"] == ["day", "seats"]

    def test_questions_of_other_domains_are_not_understood(self) -> None:
        said, _ = talk(PLAIN, "time?", "bill?", "guests?")
        assert said == [NOT_UNDERSTOOD] * 3

    def test_it_leaves_at_the_limit(self) -> None:
        said, user = talk(PLAIN, "day?", "day?", "day?", max_turns=3)
        assert said == ["mon", "mon", None]
        assert user.outcome().metrics == {"tcr": 0.0, "acr": pytest.approx(1 / 3), "gcr": 0.0}
        said, user = talk(replace(PLAIN, change=(1, "fri")), "day?", "book R 1 2", max_turns=2)
        assert said == ["mon", None] and user.outcome().metrics["tcr"] == 0.0

    def test_as_an_environment(self) -> None:
        async def converse() -> None:
            user = SimulatedUser(replace(PLAIN, withheld=(True, False, False)), MAX_TURNS)
            assert await user.reset(PROMPT, 5) == ()
            observation = await user.step("where?")
            assert observation.messages == ({"role": "user", "content": WITHHOLDS},) and not observation.done
            observation = await user.step("book R 1 2")
            assert observation.messages == () and observation.done
            await user.close()

        asyncio.run(converse())


@pytest.mark.parametrize(
    "turn",
    [
        "",
        " ",
        "book",
        "book R 1",
        "book R 1 2 3",
        "book R 1 22",
        "Book R 1 2",
        "I book R 1 2",
        "day",
        "\x00",
        "日?",
        "book " * 50_000,
    ],
    ids=lambda turn: repr(turn[:14]),
)
def test_wrong_formats_are_not_understood(turn: str) -> None:
    said, user = talk(PLAIN, turn)
    assert said == [NOT_UNDERSTOOD]
    assert user.outcome().metrics == {"tcr": 0.0, "acr": 0.0, "gcr": 0.0}


@given(st.lists(st.text() | st.sampled_from(["day?", "book R 1 2", "book é 日 ?"]), max_size=12), st.integers(0, 99))
def test_whatever_is_said_the_metrics_are_shares(turns: list[str], seed: int) -> None:
    script = draw_script(DOMAINS["transport"], DIFFICULT, random.Random(seed))
    said, user = talk(script, *turns)
    assert said[MAX_TURNS - 1 :] == [None] * max(0, len(turns) - MAX_TURNS + 1)
    metrics = user.outcome().metrics
    assert all(0.0 <= value <= 1.0 for value in metrics.values())
    assert (metrics["tcr"] == 1.0) == (metrics["gcr"] == 1.0)


class TestClerks:
    @pytest.mark.parametrize("domain", DOMAINS)
    def test_a_perfect_clerk_gets_everything_within_the_limit(self, domain: str) -> None:
        longest, rng = 0, random.Random(0)
        for seed in range(400):
            script = draw_script(DOMAINS[domain], DIFFICULT, random.Random(seed))
            user, num_turns = served_by(script, Clerk(DOMAINS[domain], {}, rng))
            assert user.outcome().metrics == {"tcr": 1.0, "acr": 1.0, "gcr": 1.0}, script
            longest = max(longest, num_turns)
        assert longest == MAX_TURNS

    def fails(self, script: Script, rule: Rule, slot: str, seed: int = 0) -> dict[str, float]:
        clerk = Clerk(DOMAINS[script.domain], {(str(rule), script.domain, slot): (1.0, "")}, random.Random(seed))
        return served_by(script, clerk)[0].outcome().metrics

    def test_one_that_does_not_ask_again_guesses(self) -> None:
        script = replace(PLAIN, withheld=(True, False, False))
        found = [self.fails(script, Rule.ASK_AGAIN, "place", seed) for seed in range(400)]
        assert all(metrics["acr"] == 2 / 3 for metrics in found)
        assert {metrics["gcr"] for metrics in found} == {2 / 3, 1.0}
        assert sum(metrics["tcr"] for metrics in found) / 400 == pytest.approx(0.25, abs=0.08)  # four places
        assert self.fails(script, Rule.ASK_AGAIN, "day") == {"tcr": 1.0, "acr": 1.0, "gcr": 1.0}

    @pytest.mark.parametrize(
        "rule, script",
        [
            (Rule.HEAR_CORRECTION, replace(PLAIN, slips=("", "sun", ""))),
            (Rule.HEAR_CHANGE, replace(PLAIN, change=(1, "fri"))),
        ],
    )
    def test_one_that_does_not_listen_books_one_slot_wrong(self, rule: Rule, script: Script) -> None:
        assert self.fails(script, rule, "day") == {"tcr": 0.0, "acr": 1.0, "gcr": pytest.approx(2 / 3)}
        assert self.fails(PLAIN, rule, "day")["tcr"] == 1.0

    def test_one_that_has_a_code_wrong(self) -> None:
        clerk = Clerk(DOMAINS["transport"], {("day", "mon", ""): (1.0, "7")}, random.Random(0))
        user, _ = served_by(PLAIN, clerk)
        assert user.outcome().facts["record"] == "R 7 2"
        assert user.outcome().metrics == {"tcr": 0.0, "acr": 1.0, "gcr": pytest.approx(2 / 3)}


@pytest.mark.parametrize("name", DOMAINS)
def test_domains_are_unambiguous(name: str) -> None:
    domain = DOMAINS[name]
    words = [word for slot in domain.slots for word in slot.kind.codes]
    assert len(words) == len(set(words))
    assert not {*domain.openings, "no", WITHHOLDS} & set(words)
    for slot in domain.slots:
        codes = list(slot.kind.codes.values())
        assert len(codes) == len(set(codes)) and all(len(code) == 1 for code in codes)
        assert [other.name for other in domain.slots if other.question in slot.question] == [slot.name]
    openings = [opening for other in DOMAINS.values() for opening in other.openings]
    assert len(openings) == len(set(openings))
