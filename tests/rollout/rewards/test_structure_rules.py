r"""What an expression is, at the edges of each rule: separators, sets, units and the words that are none, depth."""

from __future__ import annotations

import pytest

from rollout.rewards.math_grader.structure import parse_value
from rollout.rewards.math_grader.values import Expression
from tests.rollout.rewards.cases import shown

VALUES = {
    "\\ 5": "5", r"\,5": "5", r"\;5": "5", r"\:5": "5", "~5": "5", r"\quad 5": "5", r"\qquad5": "5", r"5\quad": "5",
    r"1, 2\;, 3": "list[1; 2; 3]", r"1, 2\:, 3": "list[1; 2; 3]", r"1, 2~, 3": "list[1; 2; 3]",
    r"1, 2\,, 3": "list[1; 2; 3]", r"1, 2\quad, 3": "list[1; 2; 3]", r"1, \quadx": r"list[1; <\quadx>]",
    "(1]": "<(1]>", "[1)": "<[1)>", "[1]": "[][1]", "(1 ]": "<(1 ]>",
    "red, orange": "list['red'; 'orange']", "red; andes": "list['red'; 'andes']",
    r"\begin{pmatrix}\end{pmatrix}": "matrix[]", r"5\; x": r"<5\; x>", r"2x\, y": r"<2x\, y>",
    r"1\, and 2": "list[1; 2]", r"1\; and 2": "list[1; 2]", r"(x\,y,z)": r"()[<x\,y>; <z>]",
    r"(x\, y; 2)": "()['x y'; 2]", r"(x\;y, 2)": r"()[<x\;y>; 2]", "(1,2;3)": "()[1; 2; 3]", "(1,000)": "()[1; 0]",
    "(1,000; 2)": "()[1000; 2]", "(12,34; 5)": "()[12; 34; 5]", "(f(x,y), 1,000)": "()[<f(x,y)>; 1000]",
    "f(x,y), 1,000": "list[<f(x,y)>; 1000]", "{1},{2}": "list[{}[1]; {}[2]]", "A={1,2}": "A={}[1; 2]",
    r"A\cupx": r"<A\cupx>", r"A\cupX": r"<A\cupX>", r"A\cup 5": "union['A'; 5]", r"5\:\text{cm}": "5 cm",
    r"5\;\text{cm}": "5 cm", r"5\ \text{cm}": "5 cm", r"5\, \text{cm}": "5 cm", r"5\,\,\text{cm}": "5 cm",
    r"5\\\text{cm}": r"<5\\\text{cm}>", "2! $": "<2!> $", "2! €": "<2!> €", "2! £": "<2!> £", "2! ¥": "<2!> ¥",
    "2! ₹": "<2!> ₹", "2! ¢": "<2!> ¢", "2! °": "<2!> deg", "2!°C": "<2!> °C", "2! °F": "<2!> °F",
    "5 / s": "<5 / s>", "5/s": "<5/s>", "5 Apples": "5 apple", "5 Red Apples": "5 red apple",
    "5 well-known books": "5 well-known book", "5 ice-cream cones": "5 ice-cream cone", "5 ox": "<5 ox>",
    "5 a-b": "<5 a-b>", "5 big  dogs": "5 big dog", r"\begin{cases}x=1&\\y=2&\end{cases}": "list[x=1; y=2]",
    r"\begin{cases}x=1,&t>0\\y=2,&t<0\end{cases}": r"<\begin{cases}x=1,&t>0\\y=2,&t<0\end{cases}>",
    r"\begin{cases}1&x>0\\2&x<0\end{cases}": r"<\begin{cases}1&x>0\\2&x<0\end{cases}>",
    r"\begin{aligned}x&=3\\&=X\end{aligned}": "'X'", r"\begin{aligned}=3\\=4\end{aligned}": "4",
    r"\begin{align}x=1\end{align}": "x=1", r"\begin{align}\end{align}": r"<\begin{align}\end{align}>",
    r"\begin{align}x=1\\x=2\end{align}": "x=2", r"\begin{align}x=1\\2\end{align}": "2", r"1<x\in A": r"<1<x\in A>",
    r"x=1\in A": r"<x=1\in A>", r"x\in A\in B": r"<x\in A\in B>", r"x\equiv 1<2": r"<x\equiv 1<2>",
    r"ABC\text{ cm}": "'abc cm'", r"101_2\text{ cm}": r"<101_2\text{ cm}>", r"\text{no}\text{ cm}": "'no cm'",
    r"\pm X": "list[<X>; <-X>]", r"\pm 5\text{ cm}": "list[5 cm; -5 cm]", r"\pm\pm 5": r"<\pm\pm 5>",
    r"5\mp 3": r"<5\mp 3>", r"x\approx": r"<x\approx>", r"\approx 5": "5", r"AB \approx 5": "5",
    r"3+4\approx 5": "<3+4> or 5", r"x = \approx 5": "<x> or 5", r"\implies": r"<\implies>", r"\implies 5": "5",
    r"x\implies": r"<x\implies>", "5_8": "5 in 8", "5_{8}": "5 in 8", r"5_{\text{eight}}": "5 in 8",
    r"5_\text{ten}": "5 in 10", "0101_2": "101 in 2", "000_2": "0 in 2", "12_16": "12 in 16", "AB_{16}": "'ab16'",
    "1AB_{16}": "1AB in 16", "12_100": "<12_100>", "12_x": "<12_x>", "1,2": "list[1; 2]", "1,234": "1234",
    "1;2;3": "list[1; 2; 3]", "a,b,c": "list[<a>; <b>; <c>]", "1, 2, and 3": "list[1; 2; 3]",
    "1 and 2 and 3": "list[1; 2; 3]", "1 , 2": "list[1; 2]", r"1,\ 2": "list[1; 2]", r"1,\quad 2": "list[1; 2]",
    "x=1,2": "list[1; 2]", "x=1, y": "list[1; <y>]", "x=1, y=2, 3": "list[x=1; y=2; 3]",
    "x<1, x>2": "list[x < 1; x > 2]", "y=x=2": "y=2", "2=x=y": "y=<x>", "x=2=y": "x=<y>", "x=y": "x=<y>",
    "x=y=z": "x=<z>", "5=5": "5", "=": "<=>", "x=": "<x>", "2x=4=x": "x=4", "x+1=y+2=z+3": "<z+3>", "x:=5": "x=5",
    "(x)": "'x'", "(x,)": "<(x,)>", "(,x)": "<(,x)>", "<5>": "<<5>>", r"\langle 5\rangle": r"<\langle 5\rangle>",
    r"\langle 5,6\rangle": "<>[5; 6]", "[[1,2]]": "matrix[row[1; 2]]", "[[1],[2]]": "matrix[row[1]; row[2]]",
    "[(1,2)]": "[][()[1; 2]]", "([1,2])": "[][1; 2]", r"[\begin{matrix}1\end{matrix}]": "matrix[row[1]]",
    r"\{\begin{matrix}1\end{matrix}\}": "{}[matrix[row[1]]]", r"\{x:x>3\}": "x > 3", r"\{x|x>3\}": "x > 3",
    r"\{x \mid x>3\}": "x > 3", r"\{x\in\mathbb{R}:x>3\}": "x > 3",
    r"\{x\in\mathbb{C}:x>3\}": r"{}[<x\in\mathbb{C}:x>3>]", r"\{xy|x>3\}": "{}[xy|x > 3]", r"\{x|\}": "{}[<x|>]",
    r"\{1|2\}": "{}[<1|2>]", "{x|x>3}": "x > 3", "(x|x>3)": "x > 3", "5%": "5 percent", "5 %": "5 percent",
    "x%": "<x> percent", "x %": "<x> percent", "(5)%": "5 percent", r"\frac{1}{2}\%": "1/2 percent",
    "5%%": "5 percent", "%": "<%>", "5 cm%": "5 percent cm", "5% cm": "<5% cm>", r"5\text{ million}": "5000000",
    r"5 \text{ million dollars}": "5000000 $", "5 thousand km": "5000 km", "5.5 thousand km": "5500 ±100 of 2 km",
    "2x thousand": "<2x thousand>", "5 k": "<5 k>", r"5\text{ k}": "5 k", "5 hundred": "500", "a dozen": "'a dozen'",
    "5 dozen": "60", r"5 \text{ dozen}": "60",
}  # fmt: skip
NO_UNITS = [
    *"if where for when with mod to than more less is not but no sqrt dx remainder and or IF Where".split(),
    "in base",
]
LAYERS = {
    "brackets": "({})", "square": "[{}, 1]", "set": r"\{{{}\}}", "list": "{}, 2", "semicolons": "(1; {}; 2)",
    "equation": "(x = {}, 1)", "chain": "(y+1 = x+2 = {}, 1)", "calculation": "(1+1 = {}, 1)",
    "union": r"({} \cup 2, 1)",
    "approximation": r"(1 \approx {}, 1)", "conclusion": r"(1 \implies {}, 1)", "member": r"(x \in {}, 1)",
    "sign": r"(\pm {}, 1)", "unit": r"({}\text{{ cm}}, 1)", "percent": r"({}\%, 1)", "builder": r"\{{x | {}\}}",
    "matrix": r"\begin{{matrix}}{} & 1\end{{matrix}}", "rows": r"\begin{{align}}x=1\\ y={}\end{{align}}",
    "last row": r"\begin{{align}}1+1\\ ={}\end{{align}}", "solutions": r"(x = {} \text{{ and }} 5, 1)",
}  # fmt: skip


def test_values() -> None:
    assert {text: shown(parse_value(text)) for text in VALUES} == VALUES


def test_words_that_are_no_units() -> None:
    signs = "in m g t l L s h N J W V A K min day oz".split()
    assert [sign for sign in signs if parse_value(f"(x+1){sign}") != Expression(f"(x+1){sign}")] == []
    for text in [rf"5\text{{ {word} thing}}" for word in NO_UNITS]:
        assert parse_value(text) == Expression(text)
    for text in [f"5 {word} things" for word in NO_UNITS if word not in ("and", "or")]:
        assert parse_value(text) == Expression(text)
    assert parse_value("5 pi things") == Expression(r"5 \pi things")


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_an_answer_of_many_layers_is_not_read(layer: str) -> None:
    def nested(text: str, num_layers: int) -> str:
        return "(1, " * num_layers + text + ", 2)" * num_layers

    with pytest.raises(RecursionError, match="too many layers"):
        parse_value(nested(layer.format(nested("5", 16)), 16))
    assert parse_value(nested(layer.format(nested("5", 12)), 12)) is not None
