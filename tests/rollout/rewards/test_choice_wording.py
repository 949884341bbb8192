"""The many ways of naming a letter, of taking it back, and of naming none.

A sentence is tried with every word that may stand in it, as one word that is not known costs a right answer, or pays a
wrong one.
"""  # fmt: skip

from __future__ import annotations

import pytest

from rollout.rewards.answers.choices import find_choice

MARKS = ("()", "[]", "{}", "<>", "«»", "“”", "‘’", "''", '""', "``", "**", "__")


def wrong_ones(texts: list[str], choice: str | None, letters: str = "ABCD") -> list[tuple[str, str | None]]:
    """The texts in which another choice is found, each with that one."""
    return [(text, found) for text in texts if (found := find_choice(text, letters)) != choice]


@pytest.mark.parametrize(
    ("sentence", "choice"),
    [
        ("{0}B{1}", "B"), ("Answer: {0}B{1}", "B"), ("Answer: {0}B{1}.", "B"), ("Iron rusts.\n{0}B{1}.", "B"),
        ("Answer: {0}B{1}?", None), ("Answer: {0}B{1} or {0}C{1}", None), ("Answer: {0}B{1}, {0}C{1}", None),
        ("Answer: {0}B{1} is wrong", None), ("Answer: {0}B{1} isn't it", None), ("The answer is {0}B{1}/{0}C{1}", None),
    ],
)  # fmt: skip
def test_marks_around_a_letter(sentence: str, choice: str | None) -> None:
    assert wrong_ones([sentence.format(*marks) for marks in MARKS], choice) == []


def test_upright_and_other_wrappers_of_latex() -> None:
    named = "text textbf textit textrm textsf texttt mathrm mathbf mathit mathsf mbox operatorname boldsymbol".split()
    wrapped = [rf"\{name}{{B}}" for name in named]
    wrapped += [r"{\bf B}", r"{\rm B}", r"\left(B\right)", r"\displaystyle B", r"\quad B", r"\qquad B", "$B$", "~B"]
    wrapped += [r"\,B", r"\;B", r"\:B", r"\!B", "\\ B", "\u200bB", r"\text{(B)}", r"\textbf{B.}", r"\text {B}"]
    assert wrong_ones([rf"\boxed{{{text}}}" for text in wrapped], "B") == []
    assert wrong_ones([f"The answer is {text}" for text in [*wrapped, r"\(B\)", r"\[B\]"]], "B") == []
    joined = (r"A \text{ or } B", r"A \text{and} B", r"A\mathrm{or}B", r"A \text{, or } B", r"A \& B", "A, B", "A/B")
    assert wrong_ones([rf"\boxed{{{text}}}" for text in joined], None) == []
    assert wrong_ones([r"\boxed{\leftarrow}", r"\boxed{Because}", r"\boxed{\text{none}}", r"Answer: B. So \boxed{E}"],
        None) == []  # fmt: skip


def test_phrases_that_name_a_letter() -> None:
    verbs = ("is", "would be", "must be", "should be", "is:", ":", " :", "=", " = ", "\u2192", " ->", " -->", " -",
        " --")  # fmt: skip
    texts = [f"The answer{verb if verb[0] in ' :=' else ' ' + verb} B" for verb in verbs]
    texts += [f"{mark}Answer{mark}: B" for mark in ("**", "_", "`", "")]
    for one in ("correct", "right", "best"):
        for noun in ("option", "choice", "letter"):
            texts += [f"The {one} {noun} {verb} B" for verb in ("is", "would be", "is:")] + [f"The {one} {noun}: B"]
    texts += [f"The answer is {name} B" for name in ("option", "choice", "letter", "alternative", "the option")]
    texts += ["I choose option B", "We choose choice B", "#### B", "##### B", "####B", "Answer: option: B"]
    fillers = "therefore thus hence clearly definitely obviously indeed simply just actually".split()
    texts += [f"The answer is {filler} B" for filler in fillers] + [f"The answer is {filler}, B" for filler in fillers]
    texts += ["### Answer\nB", "**Final answer**\n\nB", "Answer\n\n(B) iron", "The answer is\nB",
        "The best option is:\nB"]  # fmt: skip
    assert wrong_ones(texts, "B") == []
    assert wrong_ones([text.upper() for text in texts if text.startswith("The answer i")], "B") == []
    none = ["### B", "The answerer: B", "I answered: C, B", "I choose iron over B", "The option is B"]
    assert wrong_ones(none, None) == []


def test_letters_as_the_subject_of_a_verdict() -> None:
    before = "So|Thus|Hence|Therefore|option|choice|I think that|letter|So A is wrong and|Clearly,|Verdict:".split("|")
    texts = [f"{words} B is correct." for words in before] + ["(B) is correct.", '"B" is correct.', "*B* is correct."]
    texts += [f"So B {verb} {end}." for verb in ("is", "must be") for end in ("correct", "right", "the best",
        "the answer")]  # fmt: skip
    for adverb in ("", "most ", "only ", "single ", "final "):
        texts += [f"So B is the {adverb}correct {noun}." for noun in ("answer", "option", "choice", "one")]
    after = (".", ",", "!", "*", ")", "", " because it is", " since it is", " as it is", " here", " and fits",
        " but rare")  # fmt: skip
    texts += [f"So B is correct{end}" for end in (*after, " while C is not", "\nThe rest is not")]
    texts += ["So (B) is correct.", "So [B] is correct.", "So **B** is correct.", "So _B_ is correct."]
    assert wrong_ones(texts, "B") == []
    doubtful = "if suppose supposing assume assuming whether why not unless were say says said claim claims".split()
    none = [f"{word} option B is correct." for word in doubtful] + [f"{word.title()} so B is right."
        for word in doubtful]  # fmt: skip
    none += ["Maybe B is correct.", "So B is correctly placed.", "So B is right of C.", "So B is the best known metal."]
    none += ["So A is correct and B is correct.", "So CB is correct.", "So 3B is correct.", "So B is almost correct."]
    assert wrong_ones(none, None) == []


def test_what_is_denied_doubted_or_taken_back() -> None:
    verbs = (
        "is not|was not|seems not|is wrong|is incorrect|is false|isn't it|wasn't it|can't be|isn’t it|can’t be"
    ).split("|")
    none = [f"Answer: B {verb}" for verb in verbs] + ["Answer: B?", "Answer: B ?", "Is the answer B?"]
    back = "Oh|Hmm|Hmmm|Wait|No|Nope|Actually|Scratch that|Correction|Sorry|Oops|On second thought".split("|")
    none += [f"Answer: B. {word}, C." for word in back] + [f"Answer: B\n{word.lower()}: (C)" for word in back]
    none += [f"Answer: B{mark}Wait, C." for mark in ("! ", "\n", " — ", " - ", ". *", ". (", ". _")]
    void = "not B|neither|none|both|all|either|unclear|unknown|ambiguous|uncertain|undetermined|impossible".split("|")
    none += [f"Answer: B\nBut the answer is {word}." for word in void] + [f"<answer>B</answer> The answer is {word}"
        for word in void]  # fmt: skip
    assert wrong_ones(none, None) == []
    kept = [f"Answer: B. No {word}: C is a gas." for word in ("doubt", "problem", "need", "other", "matter")]
    kept += ["Answer: B. Wait, B it is.", "Answer: B. I wait for C.", "Answer: B. Nothing else fits, C is a gas."]
    kept += ["Answer: B\nThe answer is explained by physics.", "Answer: B. Ohm's law rules out C.",
        "Answer: B is right"]  # fmt: skip
    assert wrong_ones(kept, "B") == []


def test_a_second_letter() -> None:
    joins = (", ", ", and ", ", or ", "/", " / ", "&", " & ", r" \& ", "+", " + ", " or ", " and ", ". Or ", "; ", " ",
        " (")  # fmt: skip
    none = [f"Answer: B{join}C" for join in joins if join != " ("] + ["Answer: B (C)", "Answer: (B) (C)"]
    maybe = ("maybe", "possibly", "perhaps", "also", "even", "probably")
    none += [f"Answer: B or {word} C" for word in maybe] + [f"Answer: B and {word} option C" for word in maybe]
    none += [f"Answer: B, C is {word}" for word in ("also right", "true")]
    assert wrong_ones(none, None) == []
    verbs = ("is too small", "was tried", "isn't", "has no mass", "does not fit", "would float", "can fly", "cannot",
        "fails")  # fmt: skip
    kept = [f"Answer: B, C {verb}" for verb in verbs] + [f"Answer: B; C {verb}" for verb in verbs]
    kept += ["Answer: B and not C", "Answer: B, not C", "Answer: (B) (C) is too small", "Answer: B, as C is a gas",
        "Answer: B) iron or copper", "Answer: B, E"]  # fmt: skip
    assert wrong_ones(kept, "B") == []


def test_letters_that_are_words() -> None:
    after = ("because it", "since it", "as it", "is right", "due to", "based on", "given that", "and not B", "not B",
        "but rare")  # fmt: skip
    assert wrong_ones([f"The answer is A {words}" for words in after], "A") == []
    assert wrong_ones([f"The answer is A {word}" for word in ("cat", "long story", "noted fact", "bus")], None) == []
    assert wrong_ones(["The answer is I think so", "The answer is I guess B"], None, "ABCDEFGHI") == []
    assert wrong_ones(["Answer: B's", "Answer: B’s", "Answer: B2", "Answer: Bad", "Answer: b", "Answer: E"], None) == []


def test_a_letter_by_its_place() -> None:
    texts = ["B) iron", "(B) iron", "[B] iron", "B. iron", "B: iron", "**B) iron**", "_B) iron_", "Option B) iron",
        "option B: iron"]  # fmt: skip
    texts += ["Iron rusts.\n\nB", "Iron rusts.\nOption B.", "Iron rusts.\n**B**!", "x = B", "1 + 1 = (B)",
        "a = b, so x = B\nDone."]  # fmt: skip
    assert wrong_ones(texts, "B") == []
    none = ["b) iron", "B.iron", "B iron", "B) iron\nC) copper", "A\nB", "B\nIron rusts.", "x = b", "x = B or C",
        "x = B, C"]  # fmt: skip
    none += ["B) or C) iron", "", " ", "BC", "x = ", "A) iron or (B"]
    assert wrong_ones(none[:-1], None) == []
