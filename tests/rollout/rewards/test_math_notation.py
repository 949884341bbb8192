r"""Notations of one expression: signs of Unicode, commands of LaTeX, plain text, and what the parser has to be told.

Each line is a reference and what a model may write for it. That other expressions stay different is looked at, too:
a notation that is read as less than it says would pay for wrong answers.
"""

from __future__ import annotations

import pytest

pytest.importorskip("math_verify")

from rollout.rewards.math_grader.compare import is_equal

SIGNS = (("6", "2×3"), ("6", "2·3"), ("6", "2⋅3"), ("3", "6÷2"), ("-3", "\u22123"), ("-3", "\u20133"), ("-3",
    "\u20123"), ("-3", "\u20103"), ("-3", "\u20113"), (r"2\pi", "2π"), (r"-\infty", "-∞"), (r"x\le 3", "x≤3"),
    (r"x\ge 3", "x≥3"), (r"x\ne 3", "x≠3"), ("4, -4", "±4"), (r"\frac{1}{7}", "1/7≈0.14"), (r"(1,2)\cup(3,4)",
    "(1,2)∪(3,4)"), (r"A\cap B", "A∩B"), ("[1,2]", "x∈[1,2]"), (r"\emptyset", "∅"), (r"\mathbb{R}", "ℝ"), ("x/2",
    "x⁄2"), ("x/2", "x∕2"), ("f'(x)", "f′(x)"), ("f'(x)", "f’(x)"), (r"45^\circ", "45°"), (r"\theta", "θ"), (r"\alpha",
    "α"), (r"\beta", "β"), (r"\gamma", "γ"), (r"\lambda", "λ"), (r"\mu", "μ"), (r"\sigma", "σ"), (r"\phi", "φ"),
    (r"\omega", "ω"), (r"\langle 1,2\rangle", "⟨1,2⟩"), ("x+1", "x\u00a0+\u00a01"), ("x+1", "x\u2009+\u20091"), ("x+1",
    "x\u202f+\u202f1"), ("x+1", "x\u2002+\u20021"), ("x+1", "x\u2003+\u20031"), ("12", "1\u200b2"), ("|x|", "∣x∣"),
    ("5/2", "2½"), ("1/3", "⅓"), ("2/3", "⅔"), ("1/4", "¼"), ("3/4", "¾"), ("1/5", "⅕"), ("2/5", "⅖"), ("3/5", "⅗"),
    ("4/5", "⅘"), ("1/6", "⅙"), ("5/6", "⅚"), ("1/8", "⅛"), ("3/8", "⅜"), ("5/8", "⅝"), ("7/8", "⅞"), (r"\frac{1}{2}x",
    "½x"), (r"\frac{1}{3}x", "⅓x"), (r"\frac{2}{3}x", "⅔x"), (r"\frac{1}{4}x", "¼x"), (r"\frac{3}{4}x", "¾x"),
    (r"\frac{1}{5}x", "⅕x"), (r"\frac{2}{5}x", "⅖x"), (r"\frac{3}{5}x", "⅗x"), (r"\frac{4}{5}x", "⅘x"),
    (r"\frac{1}{6}x", "⅙x"), (r"\frac{5}{6}x", "⅚x"), (r"\frac{1}{8}x", "⅛x"), (r"\frac{3}{8}x", "⅜x"),
    (r"\frac{5}{8}x", "⅝x"), (r"\frac{7}{8}x", "⅞x"), ("x^{10}", "x¹⁰"), ("x^2", "x²"), ("x^3", "x³"), ("x^4", "x⁴"),
    ("x^5", "x⁵"), ("x^6", "x⁶"), ("x^7", "x⁷"), ("x^8", "x⁸"), ("x^9", "x⁹"), ("x^{-1}", "x⁻¹"), ("1000", "10⁺³"),
    ("x^n", "xⁿ"), ("a_{10}", "a₁₀"), ("a_2", "a₂"), ("a_3", "a₃"), ("a_4", "a₄"), ("a_5", "a₅"), ("a_6", "a₆"),
    ("a_7", "a₇"), ("a_8", "a₈"), ("a_9", "a₉"), (r"\sqrt{2}", "√2"), ("2", "∛8"), (r"\sqrt[3]{x}", "∛x"),
)  # fmt: skip

ORNAMENTS = (("(1,2)", r"\left(1,2\right)"), ("(1,2)", r"\bigl(1,2\bigr)"), ("(1,2)", r"\big(1,2\big)"), ("(1,2)",
    r"\bigg(1,2\bigg)"), ("(1,2)", r"\Big(1,2\Big)"), ("(1,2)", r"\Biggl(1,2\Biggr)"), ("(1,2)", r"\Bigg(1,2\Bigg)"),
    ("(1,2)", r"\mleft(1,2\mright)"), ("7", r"\left.7\right."), ("1/2", r"\displaystyle\frac{1}{2}"), ("1/2",
    r"\textstyle\frac{1}{2}"), ("x+1", r"\boldsymbol{x}+1"), ("x+1", r"{\bf x}+1"), ("x+1", r"{\rm x}+1"), ("x+1",
    r"{\it x}+1"), ("5", r"\mathstrut 5"), ("5", r"\strut 5"), ("5", r"\hphantom{xx}5"), ("5", r"x=5\tag{1}"), ("5",
    r"x=5\tag*{1}"), ("5", r"x=5\label{eq:x}"), ("10", r"\sum\limits_{k=1}^{4} k"), ("10",
    r"\sum\nolimits_{k=1}^{4} k"), (r"\frac{x}{2}", r"\dfrac{x}{2}"), (r"\frac{x}{2}", r"\tfrac{x}{2}"),
    (r"\frac{x}{2}", r"\cfrac{x}{2}"), (r"\frac{x}{2}", r"\nicefrac{x}{2}"), (r"\frac{x}{2}", r"\sfrac{x}{2}"),
    (r"\frac{x}{2}", r"{x\over 2}"), ("10", r"\dbinom{5}{2}"), ("10", r"\tbinom{5}{2}"), ("5", r"\boxed{5}"), ("5",
    r"\fbox{5}"), ("5", "$5$"), ("5", "$$5$$"), ("5", r"\(5\)"), ("5", r"\[5\]"), ("5", "**5**"), ("5", "`5`"), ("5",
    "5."), ("5", "5,"), ("5", "5;"), ("5", "5:"), ("5", "5\\\\"), ("5", r"5\,"), ("5", r"5\;"), ("5", "5\\ "), ("5",
    "{5}"), ("5", r"\text{5}"), ("5", "$**5**$."), ("5", "The answer is 5"), ("5", "answer: 5"), ("5",
    "the final answer is: 5"), ("5", "approximately 5"), ("5", "approx. 5"), ("5", "about 5"), ("5", "roughly 5"),
    ("5", "around 5"), ("5", "exactly 5"), ("5", "equal to 5"), ("5", "equals 5"), ("5", r"\text{approximately } 5"),
    ("f(x)=3", r"f\!(x)=3"), (r"\frac{1024}{x}", r"\frac{1{,}024}{x}"), (r"\frac{1024}{x}", r"\frac{1\!,024}{x}"),
    (r"\frac{1024}{x}", r"\frac{1,\!024}{x}"), (r"\frac{1024}{x}", r"\frac{1,024}{x}"), ("1024x", "1 024x"), ("1024x",
    r"1\,024x"), ("x+1", r"x~+~1"), ("x+1", r"x\quad+\qquad 1"), ("x+1", r"x\;+\:1"),
)  # fmt: skip

COMMANDS = (
    ("Tuesday", r"\textbf{Tuesday}"), ("Tuesday", r"\textit{Tuesday}"), ("Tuesday", r"\textrm{Tuesday}"),
    ("Tuesday", r"\textsf{Tuesday}"), ("Tuesday", r"\texttt{Tuesday}"), ("Tuesday", r"\textnormal{Tuesday}"),
    ("Tuesday", r"\mbox{Tuesday}"), ("Tuesday", r"\hbox{Tuesday}"), ("Tuesday", r"\emph{Tuesday}"),
    ("Tuesday", r"\mathrm{Tuesday}"), ("Tuesday", r"\mathbf{Tuesday}"), ("Tuesday", r"\mathit{Tuesday}"),
    ("Tuesday", r"\mathsf{Tuesday}"), ("Tuesday", r"\operatorname{Tuesday}"), ("Tuesday", r"\mathcal{Tuesday}"),
    ("x+1", r"\mathrm{x}+1"), ("x+1", r"\mathbf{x}+1"), ("x+1", r"\mathit{x}+1"), ("x+1", r"\mathsf{x}+1"),
    (r"\sin x", r"\operatorname{sin} x"), (r"\cos x", r"\operatorname*{cos} x"), (r"x\le 3", r"x\leq 3"),
    (r"x\le 3", r"x\leqslant 3"), (r"x\le 3", "x<=3"), (r"x\le 3", "x=<3"), (r"x\ge 3", r"x\geq 3"),
    (r"x\ge 3", r"x\geqslant 3"), (r"x\ge 3", "x>=3"), (r"x\ne 3", r"x\neq 3"), (r"x\ne 3", "x!=3"),
    (r"x\ne 3", r"x\not=3"), ("x<3", r"x\lt 3"), ("x>3", r"x\gt 3"), ("1/7", r"\frac{1}{7}\simeq 0.14"),
    ("1/7", r"\frac{1}{7}\approxeq 0.14"), ("1/7", r"\frac{1}{7}\thickapprox 0.14"), ("1/7", "1/7 ~= 0.14"),
    ("1/7", "1/7 ≅ 0.14"), ("|x|", r"\lvert x\rvert"), ("|x|", r"\vert x\vert"), ("x>3", r"\{x\mid x>3\}"),
    (r"\{1,2\}", r"\lbrace 1,2\rbrace"), ("[1,2)", r"\lbrack 1,2)"), ("(1,2]", r"(1,2\rbrack"),
    ("1/3", r"0.333\ldots"), ("1/3", r"0.333\dots"), ("1/3", r"0.333\cdots"), ("1/3", "0.333…"),
    ("45°", r"45^{\circ}"), ("45°", r"45^\circ"), ("45°", r"45\degree"), ("45°", r"45\textdegree"),
    ("45°", r"45^{\degree}"), ("25°C", r"25^\circ C"), ("25°C", r"25^\circ\text{C}"), ("25°F", r"25^{\circ} F"),
    ("4", r"2x=8\implies x=4"), ("4", r"2x=8\Rightarrow x=4"), ("4", r"2x=8\Longrightarrow x=4"),
    ("4", r"2x=8\iff x=4"), ("4", r"2x=8\therefore x=4"),
)  # fmt: skip

PLAIN = ((r"\sqrt{2}", "sqrt(2)"), (r"\arcsin (x)", "arcsin(x)"), (r"\arccos (x)", "arccos(x)"), (r"\arctan (x)",
    "arctan(x)"), (r"\sinh (x)", "sinh(x)"), (r"\cosh (x)", "cosh(x)"), (r"\tanh (x)", "tanh(x)"), (r"\sin (x)",
    "sin(x)"), (r"\cos (x)", "cos(x)"), (r"\tan (x)", "tan(x)"), (r"\cot (x)", "cot(x)"), (r"\sec (x)", "sec(x)"),
    (r"\csc (x)", "csc(x)"), (r"\log (x)", "log(x)"), (r"\ln (x)", "ln(x)"), ("e^x", "exp(x)"), (r"\langle 1,2\rangle",
    "<1,2>"), (r"2\pi", "2pi"), (r"(-\infty,3)", "(-infinity,3)"), (r"(-\infty,3)", "(-infty,3)"), (r"(-\infty,3)",
    "(-inf,3)"), (r"(-\infty,3)", "(-oo,3)"), ("x^2", "x**2"), (r"2\cdot x", "2*x"), ("300000000", "3 x 10^8"), ("5",
    "max(5,3)"), ("3", "min(5,3)"), ("6", "gcd(12,18)"),
)  # fmt: skip

PARSED = (
    ("5x/2", r"2\frac{1}{2}x"), ("x/4", "0.25x"), ("x/2", ".5x"), ("2x+2", "2(x+1)"), ("x^3+x^2", "x^{2}(x+1)"),
    ("2x+2", "(x+1)2"), (r"3\pi", r"\pi(3)"), ("x^2+x", "x(x+1)"), ("ab+ac", "a(b+c)"), ("1024", "2^10"),
    (r"\frac{1}{x^2}", "x^-2"), ("2^{x+1}", "2^(x+1)"), ("x/2+3", "1/2x+3"), ("3/16", "3/4^2"), ("1/8", "3/4!"),
    (r"2\sqrt{3}", "2sqrt(3)"), (r"\frac{\sin x}{2}", r"\sin x/2"), (r"\frac{\cos x}{2}", r"\cos x/2"),
    (r"\frac{\tan x}{2}", r"\tan x /2"), (r"\frac{\cot x}{2}", r"\cot x/2"), (r"\frac{\sec x}{2}", r"\sec x/2"),
    (r"\frac{\csc x}{2}", r"\csc x/2"), (r"\frac{\ln x}{2}", r"\ln x/2"), (r"\frac{\log x}{2}", r"\log x/2"),
    (r"\frac{\sin(\theta)}{2}", r"\sin\theta/2"), ("1/2", r"\frac12"), ("1/2", r"\frac1{2}"), ("1/2", r"\frac{1}2"),
    (r"\frac{a}{b}", r"\frac ab"), (r"\sqrt{x}", r"\sqrt x"), (r"\sqrt{\pi}", r"\sqrt\pi"),
    (r"\sqrt{x+1}", r"\sqrt(x+1)"), (r"\sqrt{(x+1)(x+2)}+3", "sqrt((x+1)(x+2))+3"), ("2", r"\sqrt[3]8"),
    ("2", r"\sqrt [3] {8}"), (r"\frac{\pi}{2}", r"\frac\pi2"), ("10", r"\binom52"), (r"\sqrt{6}", r"\sqrt2\sqrt3"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt2}2"), ("3", r"\log_2 8"), ("3", r"\log_{2}{8}"),
    (r"\frac{\ln b}{\ln a}", r"\log_a b"), ("7/2x", r"3\frac12 x"), ("x^{12}", "x^12"), ("12.5x", "25x/2"),
    ("0.05x", "x/20"), ("2x^2", r"2 x ^ 2"),
)  # fmt: skip


@pytest.mark.parametrize("group", ["SIGNS", "ORNAMENTS", "COMMANDS", "PLAIN", "PARSED"])
def test_one_expression_in_many_notations(group: str) -> None:
    assert [pair for pair in globals()[group] if not is_equal(*pair)] == []
