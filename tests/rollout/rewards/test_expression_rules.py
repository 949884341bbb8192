r"""Which expression of a response is its answer: each rule at its edges, with the reading that is right there."""

from __future__ import annotations

from rollout.rewards.answers.expressions import read_expression

AFTER_A_PHRASE = {
    "Answer: the Total Cost = 5. Then 7": "5", "Answer: 9. The answer is 5 totals": "5",
    "Answer: 9. The answer is 5 MORE long": "9", "Answer: 9. The answer is 5  of": "9", "The answer is 5 offers": "5",
    "Answer: Total=5. Then 7": "5", "Answer: Total =5. Then 7": "=5", "Answer: the cost=5 now": "5",
    "Answer: ab=5. Then 7": "5", "Answer: sum==5. Then 7": "7",
    "The answer is the x 5": "5", "The answer is x, 5": "x, 5", "Answer: x = y": "x = y", "Answer: sin(x)": "sin(x)",
    "Answer: theta + 1": "theta + 1", "Answer: e and more": None, "Answer: **x**.": "x", "Answer: `x`_": "x",
    "Answer: " + "x + " * 9 + "x. 5": "x + " * 9 + "x", "Answer: x\n\n5": "x", "Answer: sin x": "sin x",
    "Answer: 5 > 9": "5 > 9", "Answer: then 5 (say)": "5", "Answer: thus: 5": "5",
    "The answer is approx.5": "5", "The answer is , 5": "5", "Answer: ,5": ",5",
    "The answer is -  5": "-  5", "The answer is - $5$. Then": "-5", "The answer is \u2212 $5$. Then": "-5",
    "The answer is *- $5$. Then": "-5", "The answer is + $5$. Then": "5", "The answer is 5_?": "5",
    "Answer: 5 .": "5", "Answer: 7. The answer is 5 )?": "7", "Answer: 5 , ?": "5",
    "Answer: 7. The answer is what 5": "7",
    "The answer is 5 Apples and 7 pears": "5, 7", "The answer is 5 big red apples and 7": "5",
    "Answer: 5 a and 7": "5, 7",
    "Answer: 5 apples  and 7": "5, 7", "Answer: 5 apples or 7": "5, 7", "Answer: 5 apples and7": "5",
    "Answer: 5 apples, 7": "5, 7", "Answer: 5 apples ,and 7": "5, 7", "Answer: 5 sinceres and 7": "5, 7",
    "Answer: 5 FOR x and 7": "5", "Answer: 5; 7": "5, 7", "Answer: 5 & 7": "5, 7", "Answer: 5, and 7": "5, 7",
    "Answer: 5; or 7": "5, 7", "Answer: $5$ and$7$": "5, 7", "Answer: 5 andes 7": "5",
}  # fmt: skip


def test_after_a_phrase() -> None:
    assert {text: read_expression(text) for text in AFTER_A_PHRASE} == AFTER_A_PHRASE


def test_a_sentence_after_a_box_that_says_nothing_but_another_answer() -> None:
    said = [
        ".",
        "!",
        ";",
        "\nThen",
        "",
        " .",
        "*.",
        "_.",
        "`.",
        '".',
        "'.",
        ").",
        "].",
        "$.",
        " apples.",
        " apples/day.",
        " apples!",
        " apples\nThen",
    ]
    said += [
        " apples",
        " m²!",
        " m³.",
        " km/h.",
        " °C.",
        " apples*.",
        " apples_.",
        " *apples*.",
        " _apples_.",
        " apples .",
    ]
    rest = [
        ", I think",
        " or so then.",
        " apples, I think",
        " for 9 apples.",
        " 5.",
        "?",
        ":",
        " apples;",
        " red apples.",
    ]
    found = {end: read_expression(rf"\boxed{{12}}. The answer is 13{end}") for end in said + rest}
    assert [end for end in said if not (found[end] or "").startswith("13")] == []
    assert [end for end in rest if found[end] != "12"] == []


AS_A_LIST = {
    "We get 5 and _7_": "5, 7", "We get 5 and `7`": "5, 7", "We get 5 and *7*": "5, 7",
    "x_12 = 5, 7": "x_12 = 5, 7", "We get 5 AND 7": "5, 7", "We get 5 Or 7": "5, 7", "We get 5 and7": "5",
    "We get 5 or7": "5",
    "We get 5 sand 7": "7",
    "We get 5 andy 7": "7", "We get 5 for 7": "7", "We get 5 orb 7": "7", "The roots are `5`, `7`": "5, 7",
    "The roots are *5* , _7_": "5, 7", "The roots are 5, *7*": "5, 7", "The roots are 5;`7`": None, "We saw 5, 7": "7",
    "5 then $6$, $7$": "6, 7", "$5$, 6, 7": "7", "$5$, $6$, 7": "7", "5, $6$, $7$": "6, 7", "so $5$, $6$": "5, 6",
    "$4$, $5$, $6$": "4, 5, 6", "so 4 $5$, $6$": "5, 6", "x: 5, 7": "5, 7", "x: 5, 7, 9": "5, 7, 9",
    "Both 5, 7": "5, 7",
    "x = 5, 7": "x = 5, 7", "x_1 = 5, 7": "x_1 = 5, 7", "x ∈ 5, 7": "5, 7", "x = 5, y = 6": "x = 5, y = 6",
    "5 = 5, 7": "7", "2x = 6, 7": "7", "bare 5, 7": "7", "We see: *5*, *7*": "5, 7", "It equals 5, 7": "7",
    "The values 5, 7": "5, 7", "The solutions 5, 7": "5, 7", "They are {5}, {7}": "{5}, {7}",
    "are (5), (7)": "(5), (7)",
    "We get 4, 5 and 7": "4, 5, 7", "We get 4 and 5, 7": "7", "The roots are 4; 5; 7": "4, 5, 7", "namely 5, 7": "5, 7",
    "are far away, and so 5, 7": "7", "We get 5,7": "5,7", r"x \in 5, 7": "5, 7", "We get 5 . and 7": "7",
}  # fmt: skip


def test_lists() -> None:
    assert {text: read_expression(text) for text in AS_A_LIST} == AS_A_LIST


def test_what_is_denied() -> None:
    denied = {
        "So it is 5 here. It cannot 7": "5", "So it is 5 here. NOT 7": "5", "So it is 5 here. Rather than  7": "5",
        "So it is 5 here. Isn't equal to 7": "5", "not 7": None, "It is not 7 but 5": "5",
        "So 5. It is not that 7": "7",
        "So 5, knot 7": "7", "So 5. It is nothing like 7": "7", "So 5. It is not be 7": "5", "So 5. Never be 7": "5",
        "So 5. It is not $7$": "5", "So 5. It is not the 7": "7", "So 5. Not\n7": "5",
    }  # fmt: skip
    assert {text: read_expression(text) for text in denied} == denied


def test_boxes_and_tags_with_more_in_them() -> None:
    cases = {
        r"<answer>\Delta + \Gamma + \Pi + \Xi</answer>": r"\Delta + \Gamma + \Pi + \Xi",
        "<answer>one two three 5</answer>": "one two three 5",
        "<answer>one two three four 5</answer>": "5", "<answer>on to us by 5</answer>": "on to us by 5",
        r"<answer>{abc}{abc}{abc}{abc} 5</answer>": "{abc}{abc}{abc}{abc} 5", "<answer>5</answer> 7": "5",
        "x\n-\\boxed{3}": "-(3)", "x\n- \\boxed{3}": "3", "x -\\boxed{3}": "3", "x \n -\\boxed{3}": "-(3)",
        r"\quad -\boxed{3}": "-(3)", r"\qquad -\boxed{3}": "-(3)", r"\Pi - \boxed{3}": "3",
        r"z-\boxed{3}": "3", r"Z-\boxed{3}": "3", "- is -\\boxed{3}": "-(3)", r"IS - \boxed{3}": "-(3)",
        r"this - \boxed{3}": "3", r"\boxed{3} \%": r"3\%", r"\boxed{3}  %": r"3\%", r"\boxed{3}, 5\%": "3",
        r"\boxed{\boxed{\boxed{\boxed{3}}}}": "3", r"\boxed{\boxed{\boxed{3}}}": "3", r"\boxed{3%}%": "3%",
        r"\boxed{\boxed{1} or \boxed{3}}": "1, 3", r"So \boxed{3} and -\boxed{5}": "-(5)",
    }  # fmt: skip
    assert {text: read_expression(text) for text in cases} == cases
    words = {
        "<answer>one two three four five six</answer>": "one two three four five six",
        "<answer>The answer is red</answer>": "red",
        "<answer>It is what it was then and there. Answer: red</answer>": "red", "It is $red$": "red",
        "It is red": None,
        "Answer: blue. <answer>red</answer>": "red", "<answer>red</answer> The answer is blue": "blue",
        "Answer: blue! Red": "blue",
        "The answer is blue\nand red": "blue", "Answer: (blue)": None, "Answer: blue (or red)": "blue",
        "Answer: $blue$ for": "blue",
        "Answer: one two three four five six": "one two three four five six",
        "Answer: one two three four five six seven": None,
        "Answer: X": "X", "Answer: notable": "notable", "Answer: not blue": None, "Answer: unknown": None,
        "Answer: wrongly": "wrongly",
        "Answer: forty": "forty", "Answer: blue sincerely": "blue sincerely", "Answer: about blue": "blue",
        "Answer: .": None,
    }  # fmt: skip
    assert {text: read_expression(text, wants_words=True) for text in words} == words


def test_a_response_that_was_cut() -> None:
    cut = {"The answer is 5": None, "The answer is 5 ": None, "The answer is 5.": "5", "Answer: 5\nSo": "5",
    "So it is 5": None,
        "So it is 5 km": None, r"\boxed{5}": "5", "<answer>5": "5", "So it is 5, as": "5", "Answer: 5, 7": None,
        "Answer: x": None,
        "Answer: x.": "x", "Answer: sin x\nSo": "sin x", "The total\nanswer: x": None}  # fmt: skip
    assert {text: read_expression(text, is_whole=False) for text in cut} == cut
