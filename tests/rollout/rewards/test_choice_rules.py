"""The rules for the letter of a response at their edges: what a rule takes, and what it just does not."""

from __future__ import annotations

from rollout.rewards.answers.choices import find_choice

READ = {
    # a phrase and what may stand between it and the letter
    "Answer: B. The answer  came from iron": "B", "Answer: B. Say chooseoption C now": "B", "Answer: B\n####": "B",
    "Answer: B\n#### iron": None, "#### \nB": "B", "The **answer**is B": "B", r"Answer: \leftarrow B": None,
    "Answer: B. The answers is C": "B", "Answer: B. Some answerless C": "B", "We choose optional B": None,
    "So I think my answer:\nB": "B", "So I think that the correct option is:\nB": "B", "Answer\n\n\nB": "B",
    "So I think that the correct option:\nB": "B", "Answer: B. My own answer: iron": None, "The answer is\n**": None,
    "Answer: B\nThe reason for my answer\nC is a gas": "B", "Answer: B\nI cannot just answer\nC is a gas": "B",
    "Final __answer__\nB": "B", "Answer: B. The best options are C": "B", "Answer: B. The best letter C": "B",
    r"Answer: \(B\) or \(C\)": None, r"Answer: \[B\], \[C\]": None, r"Answer: \(B\) is wrong": None,
    # a second letter
    "Answer: B (or C)": None, "Answer: B [or C]": None, "Answer: B (and C)": None, "Answer: B, and C": None,
    "Answer: B. C": "B", "Answer: B. or C": None, "Answer: B [C]": None, "Answer: B(C)": None, "Answer: B[C]": None,
    "Answer: B; option C": None, "Answer: B or the letter C": None, "Answer: B/C": None, "Answer: B was wrong": None,
    "Answer: B, C is also right": None, "Answer: B, C has also mass": None,
    "Answer: B. And C is too small": "B", "Answer: B or c": "B", "Answer: B iron C": "B", "Answer: B. Iron, C": "B",
    "Answer: B wasn't right": None, "Answer: B, C can't": "B", "Answer: B, C isn't right": "B", "Answer: B!?": "B",
    # articles
    "The answer is A sincere man": None, "The answer is A duel": None, "The answer is A asp": None, "Answer: A": "A",
    "The answer is A isle": None, "The answer is A butter knife": None, "The answer is A and nothing": None,
    "The answer is A  because": "A", "The answer is A\ncat": "A", "The answer is A Cat": "A", "Answer: B cat": "B",
    # verdicts
    "So 'B' is correct.": "B", "So B)]}\"'$*_ is correct.": "B", "So B      is correct.": "B", "So B is answer.": "B",
    "Also B is correct.": None, "Virtuoso B is correct.": None, "So B is the correctness.": None,
    "So B is correct *": "B",
    "If A holds! So B is correct.": "B", "If A holds; so B is correct.": "B", "If A holds? So B is correct.": "B",
    "If A holds. So B is correct.": "B", "If A holds\nso B is correct.": "B", "If A holds, so B is correct.": None,
    "So B is correct. So B is right.": "B", "So B is correct. So C is right.": None, "So B is correct      .": "B",
    "So B is  correct.": None, "So B is the answer for it.": None, "So B is the asking answer": None,
    "So B is correct assuming so.": None, "So Bis correct.": None, "So B is correct      \n\nIndeed.": "B",
    # taken back
    r"\boxed{B} Wait, C": None, r"\boxed{B} wait, it is B": "B", "Answer: B? No, C": None, "Answer: B. no, (C)": None,
    "Answer: B. Nope: C": None, "Answer: B.\n\n  **Wait**, C": None, "Answer: B. Wait, BC": "B",
    "Answer: B. Note C": "B",
    "Answer: B. Wait.\nC is out": "B", "Answer: B. No  doubt C": None, "Answer: B - no, C": None,
    "Answer: B -no, C": "B",
    # by place
    "Option(B) iron": "B", "(B): iron": "B", "B)": "B", "B .": "B", "B.  iron": "B", "B:iron": None, "B)iron": "B",
    "[B) iron": "B", " * B) iron": "B", "B) C": "B", "Iron.\n(B).": "B", "B!": "B", "B!!": None, "B.**": "B",
    "Iron.\nB\n \n": "B", "A\nB": None, "A\nIron.\nA": None, "x = A, y = B": "B", "x = B\nC": "C",
    "x = B\nC) iron": "B",
    "x == B": "B", "x = iron": None, "Choice B": "B", "the letter B.": "B", "**Option: B**": "B",
}  # fmt: skip


def test_a_letter_is_read_or_not() -> None:
    assert {text: find_choice(text, "ABCD") for text in READ} == READ


def test_a_tag_is_read_as_a_response_if_it_holds_one() -> None:
    texts = {
        "<answer>The answer is B</answer>": "B", "<answer>Iron. Answer: B</answer>": "B", "<answer>iron</answer>": None,
        r"<answer>so \boxed{B} then</answer>": "B", "Answer: C\n<answer>x = B</answer>": None,
        "<answer>B</answer>": "B",
        "<answer>B</answer> Wait, C": None, "Answer: C <answer></answer>": None, r"Answer: C \boxed{3}": "C",
        r"Answer: C \boxed{\text{iron}}": None,
    }  # fmt: skip
    assert {text: find_choice(text, "ABCD") for text in texts} == texts
