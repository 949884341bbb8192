r"""What an expression is, in all its parts: numbers with precision and unit, names, intervals, brackets, groups.

A verdict leaves out what two equal values have in common, such as a unit that may be missing; here it is spelled out.
"""

from __future__ import annotations

import re

from rollout.rewards.math_grader.brackets import encloses, split
from rollout.rewards.math_grader.equations import bounds, is_calculation, is_name
from rollout.rewards.math_grader.exact import as_number
from rollout.rewards.math_grader.structure import parse_value
from tests.rollout.rewards.cases import shown

NUMBERS = {
    "5": "5", "5.": "5", "5%": "5 percent", "5 %": "5 percent", r"\frac{1}{2}%": "1/2 percent", "1st": "1",
    "2nd": "2", "3rd": "3", "4th": "4", "11th": "11", r"5\text{th}": "5", r"5^{\text{th}}": "5",
    r"5 ^ { \text {th} }": "5", r"5\text{rd}": "5", r"5^{\text{st}}": "5", "$5": "5 $", r"\$5": "5 $", "-$5": "-5 $",
    "$-5": "-5 $", "- $5": "-5 $", "+$5": "5 $", "US$5": "5 $", "CA$5": "5 $", "AU$5": "5 $", "A$5": "5 $",
    "C$5": "5 $", "B$5": "nothing", "€5": "5 €", "£5": "5 £", "¥5": "5 ¥", "₹5": "5 ₹", "€ 5": "5 €",
    "$5k": "5000 $", "$5 m": "5000000 $", "5€": "5 €", "--5": "5", "---5": "-5", "-(5)": "-5", "-(-5)": "5",
    "-(2)(3)": "nothing", "-((5))": "nothing", r"0.\overline{3}": "1/3", r"0.\overline 3": "1/3",
    r".\overline{3}": "1/3", r"0.1\overline{6}": "1/6", r"-0.\bar{3}": "-1/3", r"0.\dot{3}": "1/3",
    r"0 . \bar 3": "nothing", r"12.\overline{34}": "1222/99", r"0.\overline{3}%": "1/3 percent",
    r"$0.\overline{3}": "1/3 $", "0.333...": "1/3", "0.33...": "33/100 ±1/100 of 2", "0.3333 ...": "1/3",
    ".333...": "1/3", "0.1666...": "1/6", "0.1212...": "303/2500 ±1/10000 of 4", "0.121212...": "4/33",
    "0.123123...": "41/333", "0.123412341234...": "1234/9999", "0.1234512345...": "4115/33333",
    "0.142857142857...": "1/7", "-0.333...": "-1/3", "12.333...": "37/3", "0.5": "1/2 ±1/10 of 1",
    "0.50": "1/2 ±1/100 of 2", ".5": "1/2 ±1/10 of 1", "1.5": "3/2 ±1/10 of 2", "-1.5": "-3/2 ±1/10 of 2",
    "1,000.5": "2001/2 ±1/10 of 5", "1 000.50": "2001/2 ±1/100 of 6", "1'000.5": "2001/2 ±1/10 of 5", "0.5/3": "1/6",
    "1.50/3": "1/2", "1.5e3": "1500 ±100 of 2", "1.5e-3": "3/2000 ±1/10000 of 2", "0.0": "0",
    "0.005": "1/200 ±1/1000 of 1", "10.05": "201/20 ±1/100 of 4", "1.5%": "3/2 ±1/10 of 2 percent",
    "$1.50": "3/2 ±1/100 of 3 $", "1.5 million": "1500000 ±100000 of 2", "1.5 × 10^3": "1500 ±100 of 2",
    "1/2.5": "2/5", "1.5 / 2": "3/4", "01.5": "3/2 ±1/10 of 2", "00.50": "1/2 ±1/100 of 2", "5 £": "5 £",
    "5¥": "5 ¥", "5₹": "5 ₹", "5.5€": "11/2 ±1/10 of 2 €", "1-2€": "nothing", "A$ 5": "5 $",
    "AU$5.5": "11/2 ±1/10 of 2 $", "0.5 /3": "1/6", "0.25/ 3": "1/12", "12.5.6": "nothing",
    "-0.5": "-1/2 ±1/10 of 1", "5!": "nothing", "0.10203": "10203/100000 ±1/100000 of 5", "0.1231231...": "41/333",
    "0.99...": "99/100 ±1/100 of 2",
    "0.12345671234567...": "12345671234567/100000000000000 ±1/100000000000000 of 14",
}  # fmt: skip

NAMES = (
    "x", "X", "theta", r"\theta", "Area", "a_1", "a_{1}", "a_n", "a_{n+1}", "a_{1,2}", "a_{n-1}", "x'", "x''",
    "f'(x)", "f(x)", "f(2)", "f", "f(x,y)", "f(a_1)", "P(A|B)", "A", "f_1(x)", "a_1'", "total cost", "(x,y)",
    "(x_1,x_2)", "(x_1,x_2,x_3)", "(X,Y)", "y", "m+n", "m", "n", "a+b+c", "a+b+c+d", "m-n", "|AB|", "|ABC|", "AB",
    r"\angle ABC", r"\angle {ABC}", r"\overline{AB}", r"\overline {AB}", r"\vec{v}", r"\vec v", r"\hat{x}",
    r"\bar x", r"\triangle ABC", r"\frac{dy}{dx}", r"\frac{d}{dx}", r"\frac{dV}{dt}", r"\text{Area}",
    r"\text{total cost}", r"\mu", "five", "Total Surface Area", "i", "a_ {10}", "f (x)", "P(A, B)", "P( A )",
    "(x, y)", "(x_{1}, x_{2})", "( x , y )", "m + n", "| AB |", "total  cost", "f( x , y )", "T_{max}", "v_0",
    "a_{12,3}", "dy", "(x_1,y)", "aA", "m-n+k", r"\frac{d}{dt}", "x''_1", "x_1''", "a_{n,m}", "a_{2n-1}",
    r"\theta_1", "T_max", "f(x) ", "w", "a - b", "a-b-c-d", "f(2, 3)", "(a_{1},b_{2})", "(a_1 , b_2)", r"\hat x",
    r"\bar{x}",
)  # fmt: skip
NO_NAMES = (
    "{10}", "(x)", "(x,2)", "a+b+c+d+e", "x+y", "a+x", "2a", "|A|", "|x|", r"\angle{|A|}", r"\overline{1}",
    r"\frac{dx}{2}", r"\pi", r"\infty", "e", r"\emptyset", "5", "x5", "x+1", "f(x)+1", "a_1+1", "1/2", "x _1",
    "a_{1", "x_", "P(A+B)", "(x,y,2)", "(xy,z)", "(x, 2y)", "m+2", "m+x", "|a1|", "|AB", r"\overline{AB}1",
    r"\frac{dy}{dx}+1", r"\frac{dxy}{dt}", r"\frac{y}{x}", "a-b-c-d-e", "f(2+3)",
)  # fmt: skip

CALCULATIONS = (
    ("3+4", "7"), ("e", "1"), ("i", "1"), ("AB", "5"), (r"\pi", "3"), (r"5\text{ cm}", "5"), (r"5\text {x}", "5"),
    (r"\int x", "x"), (r"\sum x", "x"), (r"\prod x", "1"), (r"\lim x", "1"), (r"\iint x", "1"),
)  # fmt: skip
NO_CALCULATIONS = (
    ("x", "7"), ("2x", "8"), (r"5\text{ a b}", "x"), (r"\integer x", "1"), (r"x\int", "1"), ("{x}", "1"),
    (r"\frac{x}{2}", "5"), (r"\sqrt{x}", "5"), ("3", "x+1"), ("a+1", "1"), ("d+1", "1"), ("f+1", "1"), ("h+1", "1"),
    ("j+1", "1"), ("z+1", "1"), ("A+1", "1"), ("I+1", "1"), ("Z+1", "1"),
)  # fmt: skip

BOUNDS = {
    (("x", "3"), (">",)): ("()", "3", r"\infty"), (("x", "3"), ("<",)): ("()", r"-\infty", "3"),
    (("x", "3"), (r"\ge",)): ("[)", "3", r"\infty"), (("x", "3"), (r"\le",)): ("(]", r"-\infty", "3"),
    (("3", "x"), (">",)): ("()", r"-\infty", "3"), (("3", "x"), ("<",)): ("()", "3", r"\infty"),
    (("3", "x"), (r"\ge",)): ("(]", r"-\infty", "3"), (("3", "x"), (r"\le",)): ("[)", "3", r"\infty"),
    (("1", "x", "3"), ("<", "<")): ("()", "1", "3"), (("1", "x", "3"), (r"\le", "<")): ("[)", "1", "3"),
    (("1", "x", "3"), ("<", r"\le")): ("(]", "1", "3"), (("3", "x", "1"), (">", ">")): ("()", "1", "3"),
    (("3", "x", "1"), (r"\ge", r"\ge")): ("[]", "1", "3"), (("3", "x", "1"), (">", "<")): None,
    (("1", "x", "3"), ("<", ">")): None, (("x", "3"), (r"\ne",)): None, (("x", "y"), ("<",)): None,
    (("1", "2"), ("<",)): None, (("1", "2", "x"), ("<", "<")): None, (("x", "1", "2"), ("<", "<")): None,
    (("1", "x", "2", "3"), ("<", "<", "<")): None, ((r"\theta", "3"), ("<",)): ("()", r"-\infty", "3"),
    (("radians", "3"), ("<",)): ("()", r"-\infty", "3"), (("length", "3"), ("<",)): ("()", r"-\infty", "3"),
    ((r"\epsilon", "3"), ("<",)): ("()", r"-\infty", "3"), (("velocity", "3"), ("<",)): None,
    ((r"\lambda", "3"), ("<",)): ("()", r"-\infty", "3"),
}  # fmt: skip

PARTS = {
    "a,b": ("a", "b"), "(a,b),c": ("(a,b)", "c"), "[a,b],c": ("[a,b]", "c"), "{a,b},c": ("{a,b}", "c"),
    r"\{a,b\},c": (r"\{a,b\}", "c"), r"\langle a,b\rangle,c": (r"\langle a,b\rangle", "c"),
    r"\begin{matrix}a,b\end{matrix},c": (r"\begin{matrix}a,b\end{matrix}", "c"),
    r"\left(a,b\right),c": (r"\left(a,b\right)", "c"), r"\frac{a,b}{c,d},e": (r"\frac{a,b}{c,d}", "e"),
    "((a,b),c),d": ("((a,b),c)", "d"), "a , b": ("a", "b"), ",a,": ("", "a", ""), "": ("",), "a)b,c": ("a)b,c",),
    "(a,b": ("(a,b",), r"\alpha,b": (r"\alpha", "b"),
    r"\langleX,b": (r"\langleX", "b"), r"\langlex,b": (r"\langlex", "b"),
}  # fmt: skip

ENCLOSED = (
    ("(a)", "(", ")"), ("((a)b)", "(", ")"), ("()", "(", ")"), ("(a]", "(", "]"), ("[a)", "[", ")"),
    (r"\{a\}", r"\{", r"\}"), (r"\langle a\rangle", r"\langle", r"\rangle"), ("{a}", "{", "}"),
    (r"(\begin{x}a\end{x})", "(", ")"), (r"\{\}", r"\{", r"\}"), (r"(\alpha)", "(", ")"),
)  # fmt: skip
NOT_ENCLOSED = (
    ("(a)(b)", "(", ")"), ("(", "(", ")"), (")", "(", ")"), (r"\{a\}\{b\}", r"\{", r"\}"), ("((a)", "(", ")"),
    ("(a", "(", ")"), ("a)", "(", ")"),
)  # fmt: skip

VALUES = {
    r"\{\}": "{}[]", "()": "()[]", "(1,2)": "()[1; 2]", "(1;2)": "()[1; 2]", "(1,2]": "(][1; 2]",
    "[1,2)": "[)[1; 2]", "[1,2]": "[][1; 2]", r"\{1,2\}": "{}[1; 2]", "{1,2}": "list[1; 2]", "<1,2>": "<>[1; 2]",
    r"\langle 1,2\rangle": "<>[1; 2]", "(5)": "5", "[5]": "[][5]", "((5))": "5",
    "[[1,2],[3,4]]": "matrix[row[1; 2]; row[3; 4]]", "[[1,2],3]": "[][[][1; 2]; 3]", "(1,000, 2)": "()[1000; 2]",
    "(1,000,2)": "()[1; 0; 2]", "((1,2),(3,4))": "()[()[1; 2]; ()[3; 4]]", "(x+1)": "<x+1>",
    "(x,y+1)": "()[<x>; <y+1>]", r"\{x | x>3\}": "x > 3", r"\{x : x>3\}": "x > 3",
    r"\{x \in \mathbb{R} | x>3\}": "x > 3", r"\{x\in\mathbb R : x>3\}": "x > 3",
    r"\{x\in\mathbb{Z} | x>3\}": "Z[x > 3]", r"\{n\in\mathbb{N} : n>3\}": "N[n > 3]",
    r"\{q\in\mathbb Q|q>3\}": "Q[q > 3]", r"\{x|x\}": "<x>", "1, 2": "list[1; 2]", "1,2": "list[1; 2]",
    "1;2": "list[1; 2]", "1; 2": "list[1; 2]", "1 and 2": "list[1; 2]", "1 or 2": "list[1; 2]",
    "1, and 2": "list[1; 2]", "1, or 2": "list[1; 2]", r"1\text{ and }2": "list[1; 2]",
    r"1 \text{, or } 2": "list[1; 2]", r"1,\ 2": "list[1; 2]", r"1,\;2": "list[1; 2]", r"1,\:2": "list[1; 2]",
    r"1,\,2": "list[1; 2]", "1,000, 2,000": "list[1000; 2000]", "1,000; 2": "list[1000; 2]", "1,000": "1000",
    "12,34": "list[12; 34]", "x = 1, 2": "list[1; 2]", "x = 1, y = 2": "list[x=1; y=2]",
    "x = 1, x = 2": "list[x=1; x=2]", "y = x, 2": "list[<x>; 2]", "1,": "1",
    "(1,2), (3,4)": "list[()[1; 2]; ()[3; 4]]", "(1,2),(3,4)": "list[()[1; 2]; ()[3; 4]]",
    "f(x,y), 2": "list[<f(x,y)>; 2]", r"\frac{1,2}{3}": r"<\frac{1,2}{3}>", r"A\cup B": "union['A'; 'B']",
    r"(1,2)\cup(3,4)": "union[()[1; 2]; ()[3; 4]]", r"A\cap B": r"<A\cap B>", r"\cupx": r"<\cupx>",
    r"\mathbb{R}": r"()[<-\infty>; <\infty>]", r"\mathbb R": r"()[<-\infty>; <\infty>]",
    "all real numbers": r"()[<-\infty>; <\infty>]", "all reals": r"()[<-\infty>; <\infty>]", r"\pm 3": "list[3; -3]",
    r"2\pm 3": "list[<2+3>; <2-3>]", r"\pm x": "list[<x>; <-x>]", r"2\pm3\pm4": r"<2\pm3\pm4>",
    r"\pm 1\mp 2": r"<\pm 1\mp 2>", r"x = \pm 3": "x=list[3; -3]",
    r"x=2\pm\sqrt{3}": r"x=list[<2+\sqrt{3}>; <2-\sqrt{3}>]", r"1/3 \approx 0.33": "1/3 or 33/100 ±1/100 of 2",
    r"x \approx 0.33": "33/100 ±1/100 of 2", r"\approx": r"<\approx>", r"\approx 0.33": "33/100 ±1/100 of 2",
    r"x = 1/3 \approx 0.33": "x=1/3 or 33/100 ±1/100 of 2", r"2x=8 \implies x=4": "x=4", "101_2": "101 in 2",
    "101_{2}": "101 in 2", r"101_{\text{two}}": "101 in 2", "1F_{16}": "1F in 16",
    r"1f_{\text{sixteen}}": "1F in 16", "17_ 8": "17 in 8", r"17_{\text{eight}}": "17 in 8",
    r"5_{\text{ten}}": "5 in 10", "0_2": "0 in 2", "00101_2": "101 in 2", "G1_2": "<G1_2>", "101_222": "<101_222>",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}": "matrix[row[1; 2]; row[3; 4]]",
    r"\begin{bmatrix}1\\2\end{bmatrix}": "matrix[row[1]; row[2]]",
    r"\begin{Bmatrix}1\end{Bmatrix}": "matrix[row[1]]", r"\begin{matrix}1\end{matrix}": "matrix[row[1]]",
    r"\begin{smallmatrix}1&2\end{smallmatrix}": "matrix[row[1; 2]]",
    r"\begin{array}{cc}1&2\end{array}": "matrix[row[1; 2]]",
    r"\begin{array}{c|c}1&2\end{array}": "matrix[row[1; 2]]",
    r"\begin{array}{ l r }1&2\end{array}": "matrix[row[1; 2]]", r"\begin{pmatrix}1\\\end{pmatrix}": "matrix[row[1]]",
    r"\begin{vmatrix}1\end{vmatrix}": r"<\begin{vmatrix}1\end{vmatrix}>",
    r"[\begin{array}{c}1\end{array}]": "matrix[row[1]]", r"(\begin{array}{c}1\end{array})": "matrix[row[1]]",
    r"\begin{align}x&=1\\y&=2\end{align}": "list[x=1; y=2]", r"\begin{aligned}x&=3+4\\&=7\end{aligned}": "7",
    r"\begin{gather}x=1\end{gather}": "x=1", r"\begin{gathered}x=1.\end{gathered}": "x=1",
    r"\begin{equation}x=1\end{equation}": "x=1", r"\begin{split}2x&=8\\x&=4;\end{split}": "x=4",
    r"\begin{cases}x=1\\y=2\end{cases}": "list[x=1; y=2]",
    r"\begin{cases}x&1\\y&2\end{cases}": r"<\begin{cases}x&1\\y&2\end{cases}>",
    r"\begin{cases}x=1\\x=2\end{cases}": r"<\begin{cases}x=1\\x=2\end{cases}>",
    r"\begin{align*}x&=1\\\\y&=2,\end{align*}": "list[x=1; y=2]", "x=5": "x=5", "5=x": "x=5", "2x=8": "<2x>=<8>",
    "3+4=7": "7", "x=3+4=7": "x=7", "3+4=7=x": "x=7", "y=2x+1": "y=<2x+1>", "2x+1=y": "y=<2x+1>",
    "x+y=3": "<x+y>=<3>", "x=": "<x>", "=5": "5", "x==5": "x=5", "a=b=c": "a=<c>", "x<3": "x < 3", "3>x": "3 > x",
    "1<x<3": "1 < x < 3", r"x\le 3": r"x \le 3", r"x\ge 3": r"x \ge 3", r"x\ne 3": r"x \ne 3", r"x \in 3": "3",
    r"\in 3": "3", r"x\in": r"<x\in>", r"x\equiv 3": r"<x\equiv 3>", "x<": "<x<>", "5 cm": "5 cm",
    r"5\text{ cm}": "5 cm", r"5\,\text{cm}": "5 cm", r"5~\text{cm}": "5 cm", r"5\quad\text{cm}": "5 cm",
    r"5\text{ cm}^2": "5 cm^2", r"5\text{ cm}^{3}": "5 cm^3", r"5\text{ cm}^{-1}": "5 cm^-1",
    r"5\text{ m}/\text{s}": "5 m/s", "5cm": "5 cm", "5m": "<5m>", "5 m": "5 m", "5  m": "5 m", r"5\ m": "5 m",
    r"5\,m": "5 m", "5~m": "5 m", "5 m/s": "5 m/s", "5 cm^2": "5 cm^2", "5 cm^{2}": "5 cm^2", "5 cm²": "5 cm^2",
    "5°": "5 deg", "5 °C": "5 °C", "5$": "5 $", "5 apples": "5 apple", "5 red apples": "5 red apple",
    "5 big red apples": "5 big red apple", "5 a b c d e": "<5 a b c d e>", "5 ap": "<5 ap>", "5 app.": "5 app",
    "5apples": "<5apples>", "5 x": "<5 x>", "5 more": "<5 more>", "5 in": "5 in", r"\sqrt{2} cm": r"<\sqrt{2}> cm",
    "(x+1) cm": "<x+1> cm", "x! cm": "<x!> cm", "2x cm": "<2x cm>", r"2x\text{ cm}": "<2x> cm",
    r"5\text{ and }": r"<5\text{ and }>", r"5\text{ or more}": r"<5\text{ or more}>",
    r"5\text{ if }x": r"<5\text{ if }x>", r"5\%": "5 percent", r"x\%": "<x> percent", r"5\% cm": "<5% cm>",
    r"(1,2)\%": "<(1,2)%>", r"5\text{ cm}\text{ }": "5 cm", r"(3,4)\text{ cm}": "()[3; 4]",
    r"x=5\text{ cm}": "x=5 cm", r"5\text{ cm}\approx 2\text{ in}": "5 cm or 2 in", r"\text{about }5": "5",
    r"5 \text{ feet } 4 \text{ inches}": r"<5 \text{ feet } 4> in", "5 USD": "5 $", "5 dollars": "5 $",
    "5 km/h": "5 km/h", "5 km per hour": "5 km/h", "5 deg": "5 deg", "5 degrees": "5 deg", "5 / s": "<5 / s>",
    r"5 \frac{m}{s}": r"<5 \frac{m}{s}>", "3 million": "3000000", "3 million dollars": "3000000 $",
    "5 o'clock": "<5 o'clock>", r"5\text{°C}": "5 °C", r"5\text{°F}": "5 °F", "5 less": "<5 less>", "5 pi": r"<5 \pi>",
    "5 mod 3": "<5 mod 3>", "5 with": "<5 with>", "5 dx": "<5 dx>", "3 million people": "3000000 people",
    r"\$3\text{ million}": "3000000 $", r"3.5\text{ thousand}": "3500 ±100 of 2", "2 hundred": "200",
    "3 billion": "3000000000", "4 trillion": "4000000000000", "3 dozen eggs": "36 egg",
    r"x+1\text{ million}": r"<x+1 \cdot 1000000>", "2x million": "<2x million>", "3 millions": "3000000",
    "All real numbers": r"()[<-\infty>; <\infty>]", r"\text{all reals}": r"()[<-\infty>; <\infty>]",
    r"\frac{dV}{dt}=5": r"\frac{dv}{dt}=5", "a_1+1=5": "<a_1+1>=<5>", "5€": "5 €", "25° Celsius": "25 °C",
    r"25^\circ\text{F}": "25 °F", "5=|AB|": "|ab|=5", "5 = AB": "ab=5", r"2 \pm 3": "list[<2 +3>; <2 -3>]",
    r"\frac{x}{2}=5": r"<\frac{x}{2}>=<5>", "3+4=8-1=7": "7", "2a,and 3b": "list[<2a>; <3b>]",
}  # fmt: skip


def test_numbers() -> None:
    assert {text: shown(as_number(text)) for text in NUMBERS} == NUMBERS


def test_names_and_calculations() -> None:
    assert [text for text in NAMES if not is_name(text)] == []
    assert [text for text in NO_NAMES if is_name(text)] == []
    assert [sides for sides in CALCULATIONS if not is_calculation(list(sides))] == []
    assert [sides for sides in NO_CALCULATIONS if is_calculation(list(sides))] == []
    assert {chain: bounds(*chain) for chain in BOUNDS} == BOUNDS


def test_brackets() -> None:
    assert {text: tuple(split(text, re.compile(","))) for text in PARTS} == PARTS
    assert [case for case in ENCLOSED if not encloses(*case)] == []
    assert [case for case in NOT_ENCLOSED if encloses(*case)] == []


def test_values() -> None:
    assert {text: shown(parse_value(text)) for text in VALUES} == VALUES
