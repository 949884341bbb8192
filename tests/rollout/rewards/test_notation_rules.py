r"""The notation of expressions at its edges: signs with other names, what ends a command, what is left alone."""

from __future__ import annotations

from rollout.rewards.math_grader.notation import clean, for_parser

SIGNS = {
    "×": r"\times", "·": r"\cdot", "⋅": r"\cdot", "÷": r"\div", "π": r"\pi", "∞": r"\infty", "≤": r"\le", "≥": r"\ge",
    "≠": r"\ne", "±": r"\pm", "≈": r"\approx", "∪": r"\cup", "∩": r"\cap", "∈": r"\in", "∅": r"\emptyset",
    "θ": r"\theta",
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "λ": r"\lambda", "μ": r"\mu", "σ": r"\sigma", "φ": r"\phi",
    "ω": r"\omega", "⟨": r"\langle", "⟩": r"\rangle", "°": r"^\circ", "√": r"\sqrt", "≅": r"\approx",
}  # fmt: skip
ALONE = {
    "\u2212": "-", "\u2013": "-", "\u2012": "-", "\u2010": "-", "\u2011": "-", "ℝ": r"\mathbb{R}", "⁄": "/", "∕": "/",
    "′": "'", "’": "'", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2002": " ", "\u2003": " ", "\u200b": "",
    "∣": "|",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}",
    "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}", "…": "...",
}  # fmt: skip
FUNCTIONS = "arcsin arccos arctan sinh cosh tanh sin cos tan cot sec csc log ln exp".split()


def test_signs() -> None:
    assert {sign: clean(f"2{sign}b") for sign in SIGNS} == {sign: f"2{name} b" for sign, name in SIGNS.items()}
    assert {sign: clean(f"2{sign}b") for sign in ALONE} == {sign: f"2{name}b" for sign, name in ALONE.items()}
    raised, lowered = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "₀₁₂₃₄₅₆₇₈₉"
    assert [clean(f"x{sign}y") for sign in raised] == [f"x^{{{sign}}}y" for sign in "0123456789-+n"]
    assert [clean(f"x{sign}y") for sign in lowered] == [f"x_{{{sign}}}y" for sign in "0123456789"]
    assert clean(f"x{raised}y") == "x^{0123456789-+n}y" and clean(f"x{lowered}y") == "x_{0123456789}y"


def test_functions() -> None:
    for written in ("{} x", "{}A", r"\operatorname{{{}}}x", r"\operatorname*{{ {} }}x", r"\operatorname {{{}}}x"):
        expected = [rf"\{name} {'A' if written == '{}A' else 'x'}" for name in FUNCTIONS]
        assert [clean(written.format(name)) for name in FUNCTIONS] == expected
    assert [name for name in FUNCTIONS if clean(f"2{name} x") != rf"2\{name} x"] == []
    assert [
        name for name in FUNCTIONS if clean(f"k{name} x") != f"k{name} x" or clean(f"K{name} x") != f"K{name} x"
    ] == []
    assert [name for name in FUNCTIONS if clean(rf"\{name} x") != rf"\{name} x"] == []
    applied = "sin cos tan cot sec csc ln log".split()
    for written in (r"\{} x/2", r"\{}\pi/2", r"\{} x /2", r"\{}  x  /2"):
        found = [for_parser(written.format(name)).replace(" ", "") for name in applied]
        assert found == [rf"\{name}({'π' if 'pi' in written else 'x'})/2".replace("π", r"\pi") for name in applied]
    assert for_parser(r"\sin 2/y") == r"\sin 2/y" and for_parser(r"\sinh x/2") == r"\sinh x/2"


CLEANED = {
    r"$5\$": r"$5\$",
    "kpi r": "kpi r", "<,2>": "<,2>", "<1,>": "<1,>",
    r"{a\overline b}": r"a\overline b", r"{a\overA}": r"a\overA", r"{a \over b}": r"\frac{a }{ b}",
    r"x\label{}": "x", r"x\label {a}": "x", r"x\tag{}": "x", r"x\tag* {1}": "x", r"x\tag": r"x\tag",
    r"\mathrm{X}y": "X y",
    r"\operatorname*{X}y": "X y", "piR^2": r"\pi R^2", "2piR": r"2\pi R", "pink": "pink", "Api": "Api",
    "zoo x": "zoo x",
    "Zoo": "Zoo", "xinf": "xinf", "infX": "infX", "ooX": "ooX", r"\infty x": r"\infty x", "theabout 5": "theabout 5",
    "about 5 and about 6": "5 and about 6", "the  final  answer is 5": "5", "approximate 5": "approximate 5",
    "exactly5": "5",
    "answer5": "answer5", "the answer: \\text{5}": "5", r"\text{about} 5}": "5}", "about": "", "final about : 5": "5",
    "{{x}": "{{x}", r"{\{x\}}": r"\{x\}", "{x}y}": "{x}y}", r"{x\}}": r"{x\}}", r"\text{x}}": r"\text{x}}",
    r"\text{$x$}": "x", "{$x$}": "x", "${x}$": "x", "{x}.": "x", "": "", "$$": "", "$$$$": "", r"\(\)": "", r"\[\]": "",
    "$": "$", "{": "{", r"a{\over 2}": r"a{\over 2}", r"{2\over}": r"2\over", r"{a\overline{b}}": r"a\overline{b}",
    r"{a\over b}+{c\over d}": r"\frac{a}{ b}+\frac{c}{ d}", r"\textbf x": r"\textbf x", r"\mathcal F": r"\mathcal F",
    "<1,2=3>": "<1,2=3>", "<1,2<3>": "<1,2<3>", "<1=2,3>": "<1=2,3>", "<1<2,3>": "<1<2,3>", "1<2,3>": "1<2,3>",
    "<1,2>3>": "<1,2>3>", "<1>2,3>": "<1>2,3>", "v =  <1,2>": r"v =\langle 1,2\rangle", r"x \! y": "xy",
    r"1,\! 000": "1,000",
    r"45^\circ5": r"45^\circ 5", r"45^{\circ}  C": r"45 \text{°C}", r"45\textdegree C": r"45 \text{°C}",
    r"45\degree5": r"45^\circ 5", r"45^\circ\text{ F }": r"45 \text{°F}", r"45^\circ\text{K}": r"45^\circ \text{K}",
    r"45^\circ Fx": r"45^\circ Fx", r"45^\circ CA": r"45^\circ CA", "Amax(1,2)": "Amax(1,2)", r"max  (1)": r"\max (1)",
    "x….": "x...", "3 x 4": r"3 \times 4", "3x4": "3x4", "3x 4": "3x 4", "3 x4": "3 x4", "3  x  4": r"3 \times 4",
    "a x 4": "a x 4", "3 x b": "3 x b", "3x10^2": r"3 \times 10^2", "ax10^2": "ax10^2",
    "3 x 10 ^ 2": r"3 \times 10 ^ 2",
    "$x.$": "x", "$$x.$$.": "x", r"\(x\)\(y\)": r"\(x\)\(y\)", r"\[x\]\[y\]": r"\[x\]\[y\]", "$$x$$$$y$$": "$$x$$$$y$$",
    r"\$5\$": r"\$5\$", r"\left.x": "x", r"\left .x": "x", r"\leftx": r"\leftx", r"\big": "", r"\bigger": r"\bigger",
    r"\biggr)": ")", r"\Bigm|": "|", r"\limsup": r"\limsup", r"\nolimits_x": "_x", r"\bfX": "X",
    r"\begin{align}": r"\begin{align}",
    r"\end{align*}": r"\end{align}", "{ , }x": ",x", r"\not= x": r"\ne x",
    r"\not\in x": r"\not\in x", r"\ltX": "<X", r"\gtX": ">X", r"\vertX": "|X", r"\midX": "|X", r"\rvert": "|",
    r"\lvertx": r"\lvertx", r"\dotsX": "...X", r"x \cdots": "x...", "sqrt(2)": r"\sqrt(2)", "Asqrt(2)": "Asqrt(2)",
    r"\sqrt (2)": r"\sqrt (2)", "sqrt 2": "sqrt 2", "∛27": r"\sqrt[3]{27}", "∛AB": "∛AB", "a**b*c": r"a^b\cdot c",
    r"\boxed 5": r"\boxed 5", r"x\boxed{5}": "x{5}", r"x\fbox {5}": "x{5}", r"\hphantom{}x": "x", r"\phantom {a}x": "x",
    r"x\iff5": r"x\implies 5", r"x\implies5": r"x\implies5", r"\dbinom": r"\binom", r"\approxeq5": r"\approx 5",
    "a\tb\nc": "a b c", "\ufeffx"[1:]: "x", "x,.": "x", "x.,": "x", ".x": ".x", "x:;": "x", "x\n\n": "x", "`*x*`": "x",
}  # fmt: skip

HANDED_OVER = {
    "x^(y((z)))": r"x^{y \cdot ((z))}", "x^((y(z)))": r"x^{(y \cdot (z))}", r"x^{2}1/2": r"x^{2}\frac{1}{2}",
    "x/1/2": "x/1/2", r"2\frac{}{3}": r"2\frac{}{3}", r"2\frac{3}{}": r"2\frac{3}{}", "f_{n}(x)": "f_{n}(x)",
    r"\sqrt{x+2}(3)": r"\sqrt{x+2}(3)", r"\sqrt(\frac12)\sqrt3": r"\sqrt{\frac{1}{2}}\sqrt{3}",
    r"\frac{}b": r"\frac{}{b}",
    r"\frac{{}}b": r"\frac{{}}{b}", r"\frac {1} {2}": r"\frac{1}{2}", r"\frac{1} 2": r"\frac{1}{2}",
    r"\binom n{k}": r"\binom{n}{k}",
    r"\sqrt[n]{x}y": r"\sqrt[n]{x}y", r"\sqrt [n] xy": r"\sqrt[n]{x}y", r"\sqrt [ab]2": r"\sqrt[ab]{2}",
    r"\sqrt(x": r"\sqrt{x}",
    r"\frac{1": r"\frac{1}", r"\frac(1)(2)": r"\frac(1)(2)", r"x^\pi y": r"x^{\pi} y", "x^y z": "x^{y} z",
    "x^y2": r"x^{y}2",
    "x^{y}z": "x^{y}z", "x^-y": "x^-y", "x^{-y}": "x^{-y}", "e^(2(x+1))": "e^{2(x+1)}", "x^[1](2)": r"x^[1](2)",
    r"\sqrt(x^(y+1))": r"\sqrt{x^{y+1}}", r"\frac{x^(2)}{3}": r"\frac{x^{2}}{3}",
    r"\frac{1}{\sqrt2}": r"\frac{1}{\sqrt{2}}",
    r"\sqrt{\sqrt3}": r"\sqrt{\sqrt{3}}", "2^3(4)": "2^{3}(4)", "x2(3)": r"x2 \cdot (3)", "x_2(3)": "x_2(3)",
    "x_{12}(3)": "x_{12}(3)",
    r"12\frac{3}{4}(5)": r"(12+\frac{3}{4})(5)", r"12\frac{13}{14}": r"(12+\frac{13}{14})",
    r"1.2\frac{3}{4}": r"(\frac{12}{10})\frac{3}{4}",
    r"x^{2}3\frac{1}{2}": r"x^{2}3\frac{1}{2}", r"\pi x(3)": r"\pi x \cdot (3)", r"\log_10 5": r"\log_{10} 5",
    r"\log_xy": r"\log_{x}y",
    "1,000,000": "1000000", "1,00": "1,00", "a,000": "a,000", "1, 000": "1, 000", "1 000 000": "1000000",
    "1 00": "1 00",
    "1/2.": "1/2.", "12/5x": r"\frac{12}{5}x", "1/2^x": "1/2^{x}", "a1/2": r"a\frac{1}{2}", ".1/2": r"(\frac{1}{10})/2",
    "1/23": r"\frac{1}{23}", "a.5": r"a \cdot (\frac{5}{10})", "12.050": r"(\frac{12050}{1000})",
    "x^{2} (y)": r"x^{2} \cdot (y)",
    "x^{a}(y)": r"x^{a} \cdot (y)", "ab(y)": "ab(y)", r"\pi(y)": r"\pi \cdot (y)", "Z(y)": "Z(y)",
    "(x)  3": r"(x) \cdot 3",
    r"45^\circ+x": "45+x", r"x\;\;y": "x  y", r"x\!y": r"x\!y",
}  # fmt: skip


def test_one_notation() -> None:
    assert {text: clean(text) for text in CLEANED} == CLEANED


def test_what_the_parser_is_handed() -> None:
    assert {text: for_parser(text) for text in HANDED_OVER} == HANDED_OVER
