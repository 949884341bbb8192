r"""The notation of expressions, one rule after the other: what a text is cleaned to, and what the parser is handed.

Verdicts alone do not show each rule, since the parser forgives much and equal texts are equal in any notation.
"""

from __future__ import annotations

from rollout.rewards.math_grader.notation import clean, for_parser
from rollout.rewards.math_grader.words import as_text, text_of

CLEANED = {
    r"\begin{align*}x\end{align*}": r"\begin{align}x\end{align}", r"\left(x\right)": "(x)",
    r"\bigl( x\bigr)": "( x)", r"\biggm| x": "| x", r"\Bigr. x": "x", r"\leftarrow x": r"\leftarrow x",
    r"\displaystyle x": "x", r"\bfseries x": r"\bfseries x", r"\itx": r"\itx", r"\strut x": "x",
    r"\phantom{x}y": "y", r"x\label{eq:1}": "x", r"x \tag {1}": "x", r"x\tag*{1}": "x",
    r"\dfrac{1}{2}": r"\frac{1}{2}", r"\tfrac12": r"\frac12", r"\cfrac{1}{2}": r"\frac{1}{2}",
    r"\nicefrac{1}{2}": r"\frac{1}{2}", r"\sfrac{1}{2}": r"\frac{1}{2}", r"\dbinom{5}{2}": r"\binom{5}{2}",
    r"\tbinom52": r"\binom52", r"\textbf{a} b": r"\text{a} b", r"\textit {a} b": r"\text{a} b",
    r"\mathrm{x}y": "x y", r"\mathbf { x } y": "x y", r"\operatorname*{ x }y": "x y", r"\mathit{xy}z": r"\text{xy}z",
    r"\mathrm xy": r"\mathrm xy",
    r"\mathrm {cm}x": r"\text{cm}x", r"\mathcal{F}x": r"\text{F}x", r"\mathcal{AB}x": r"\text{AB}x",
    r"\operatorname{sin}x": r"\sin x", r"\operatorname*{ cos }x": r"\cos x", r"\operatorname {lcm}x": r"\text{lcm}x",
    r"x\leqslant y": r"x\le y", r"x\leq y": r"x\le y", r"x\leqq y": r"x\leqq y", "x<=y": r"x\le y",
    "x=<y": r"x\le y", r"x\geqslant y": r"x\ge y", r"x\geq y": r"x\ge y", "x>=y": r"x\ge y", r"x\neq y": r"x\ne y",
    "x!=y": r"x\ne y", r"x\not = y": r"x\ne y", r"x\not=y": r"x\ne y", r"x\lt y": "x< y",
    r"x\ltimes y": r"x\ltimes y", r"x\gt y": "x> y", r"x\simeq y": r"x\approx y", r"x\approxeq y": r"x\approx y",
    r"x\thickapprox y": r"x\approx y", "x~=y": r"x\approx y", "x≅y": r"x\approx y", r"\varnothing 1": r"\emptyset 1",
    r"\lvert x\rvert": "| x|", r"\vert x \vert": "| x |", r"x\mid y": "x| y", r"x\midrule y": r"x\midrule y",
    r"\lbrace x\rbrace": r"\{ x\}", r"\lbrack x\rbrack": "[ x]", "1{,}000x": "1,000x", "1{ , }000x": "1,000x",
    r"1\!,000x": "1,000x", r"1\! ,000x": "1,000x", r"1,\!000x": "1,000x", r"1, \!000x": "1,000x", r"x\!y": "xy",
    r"x \ldots": "x...", r"x\dots y": "x... y", r"x\cdots y": "x... y", "x…": "x...", r"x\dotsb y": r"x\dotsb y",
    r"45^{\circ}x": r"45^\circ x", r"45^ { \circ } x": r"45^\circ x", r"45^{\degree}x": r"45^\circ x",
    r"45^\circ x": r"45^\circ x", r"45^ \circ x": r"45^\circ x", r"45\degree x": r"45^\circ x",
    r"45\textdegree x": r"45^\circ x", r"25^\circ C": r"25 \text{°C}", r"25^\circ\text{F}": r"25 \text{°F}",
    r"25^\circ \text { C }": r"25 \text{°C}", r"25^\circ CD": r"25^\circ CD", r"25^{\circ}F.": r"25 \text{°F}",
    r"x\Rightarrow y": r"x\implies y", r"x\implies y": r"x\implies y", r"x\Longrightarrow y": r"x\implies y",
    r"x\iff y": r"x\implies y", r"x\therefore y": r"x\implies y", r"5\%x": "5%x", "sqrt (2)x": r"\sqrt(2)x",
    "asqrt(2)x": "asqrt(2)x", "√2": r"\sqrt 2", "√x": r"\sqrt x", "∛8x": r"\sqrt[3]{8}x", "∛ 8": r"\sqrt[3]{8}",
    "∛x": r"\sqrt[3]{x}", "sin x": r"\sin x", "asin x": "asin x", "arcsin x": r"\arcsin x", "sinh x": r"\sinh x",
    "sine x": "sine x", r"\sin x": r"\sin x", "max (1,2)": r"\max (1,2)", "amax(1,2)": "amax(1,2)", "max x": "max x",
    "min(1,2)": r"\min (1,2)", "gcd(1,2)": r"\gcd (1,2)", r"\max(1,2)": r"\max(1,2)", "3 x 10^8": r"3 \times 10^8",
    "3x10 ^8": r"3 \times 10 ^8", "3x 10": "3x 10", "<1,2> x": "<1,2> x", "<1,2>": r"\langle 1,2\rangle",
    "v=<1, 2>": r"v=\langle 1, 2\rangle", "v = <1,2>": r"v =\langle 1,2\rangle", "2pi r": r"2\pi r", "pin": "pin",
    r"\pi r": r"\pi r", "infinity x": r"\infty x", "infty x": r"\infty x", "inf x": r"\infty x", "oo x": r"\infty x",
    "info": "info", "x**2": "x^2", "x*y": r"x\cdot y", r"\boxed{x}y": "{x}y", r"\boxed {x}y": "{x}y",
    r"\fbox{x}y": "{x}y", r"\hphantom{ab}y": "y", "The answer is 5": "5", "the final answer: 5x": "5x",
    "answer is: 5x": "5x", "Answer : 5x": "5x", "approximately 5x": "5x", "approx. 5x": "5x", "approx 5x": "5x",
    "about 5x": "5x", "roughly 5x": "5x", "around 5x": "5x", "exactly 5x": "5x", "equal to 5x": "5x",
    "equals 5x": "5x", "aboutness": "aboutness", r"\text{approximately} 5x": "5x", r"\text { about : } 5x": "5x",
    r"{x\over y}": r"\frac{x}{ y}", "x²y": "x^{2}y", "x¹⁰": "x^{10}", "x⁻¹": "x^{-1}", "10⁺³": "10^{+3}",
    "xⁿ": "x^{n}", "a₁₀+1": "a_{10}+1", "$x$": "x", "$$x$$": "x", r"\(x\)": "x", r"\[x\]": "x",
    "$x$ and $y$": "$x$ and $y$", r"\(x\) or \(y\)": r"\(x\) or \(y\)", r"5\$": r"5\$", "**x**": "x", "`x`": "x",
    "x.": "x", "x...": "x...", "x;": "x", "x:": "x", "x,": "x", "x\\\\": "x", r"x\,": "x", "{x}": "x",
    "{x}{y}": "{x}{y}", "{{x}}": "x", r"\text{x}": "x", r"\text {x y}": "x y",
    r"\text{x}\text{y}": r"\text{x}\text{y}", r"\text{ }": "", r"\{x\}": r"\{x\}", r"{x\}": r"{x\}", "x  y": "x y",
    "x\ty": "x y", "x=<3": r"x\le 3", r"5\phantom{0}": "5", r"5\vphantom {0}x": "5x", r"\text{ approx. }5": "5",
    "5.\n": "5", r"25^\circ\text{Celsius}": r"25 \text{°Celsius}", "25°Fahrenheit": r"25 \text{°Fahrenheit}",
    "25°C": r"25 \text{°C}", r"25^\circ Celsiusx": r"25^\circ Celsiusx", r"\left\{x\right\}": r"\{x\}",
    r"\big|x": "|x", r"\Big|x": "|x", r"\bigg|x": "|x", r"\Bigg|x": "|x", r"\bigm|x": "|x",
    r"\mleft(x\mright)": "(x)", r"\middle|x": r"\middle|x", r"\textstyle x": "x", r"\limits x": "x",
    r"\nolimits x": "x", r"\boldsymbol x": "x", r"\bf x": "x", r"\rm x": "x", r"\it x": "x", r"\mathstrut x": "x",
    r"\textrm{a}b": r"\text{a}b", r"\textsf{a}b": r"\text{a}b", r"\texttt{a}b": r"\text{a}b",
    r"\textnormal{a}b": r"\text{a}b", r"\mbox{a}b": r"\text{a}b", r"\hbox{a}b": r"\text{a}b",
    r"\emph{a}b": r"\text{a}b", r"\mathsf{xy}z": r"\text{xy}z", r"\mathbf{xy}z": r"\text{xy}z",
    r"\mathsf{x}z": "x z", r"\operatorname{x}z": "x z",
    r"x\geqq y": r"x\geqq y",
    r"x\neqsim y": r"x\neqsim y",
    r"x\gtrsim y": r"x\gtrsim y",
    r"x^\circledast y": r"x^\circledast y",
    r"5\degrees": r"5\degrees",
    r"\mathrm{xy}z": r"\text{xy}z",
    r"\mathcal {x}y": r"\text{x}y",
    r"\text{}": "",
}  # fmt: skip

HANDED_OVER = {
    r"x\quad y": "x  y", r"x\qquad y": "x  y", r"x\,y": "x y", r"x\;y": "x y", r"x\:y": "x y", r"x\ y": "x y",
    "x~y": "x y", "1,000x": "1000x", "1,0000x": "1,0000x", "1 000x": "1000x", "1 0000x": "1 0000x",
    "1,000,000x": "1000000x", r"45^\circ x": "45 x", r"45^ \circ": "45", r"\log_2 8": r"\log_{2} 8",
    r"\log _ 28": r"\log_{28}", r"\log_a b": r"\log_{a} b", r"\log_{2} 8": r"\log_{2} 8", r"\sin x/2": r"\sin(x)/2",
    r"\cos x/2": r"\cos(x)/2", r"\tan x /2": r"\tan(x) /2", r"\cot x/2": r"\cot(x)/2", r"\sec x/2": r"\sec(x)/2",
    r"\csc x/2": r"\csc(x)/2", r"\ln x/2": r"\ln(x)/2", r"\log x/2": r"\log(x)/2",
    r"\sin \theta/2": r"\sin(\theta)/2", r"\sin x+2": r"\sin x+2", "x^10": "x^{10}", "x^ 10": "x^{10}",
    "x^-10": "x^{-10}", "x^{10}": "x^{10}", "x^(y+1)": "x^{y+1}", "x^ (-y)": "x^{-y}",
    "x^(y(z))": r"x^{y \cdot (z)}", "1/2x": r"\frac{1}{2}x", "1 / 2": r"\frac{1}{2}", "12/34x": r"\frac{12}{34}x",
    "2.1/2": r"(\frac{21}{10})/2", "3/1/2": r"\frac{3}{1}/2", "(2)/(3)": "(2)/(3)", "1/2.5": r"1/(\frac{25}{10})",
    "1/2!": "1/2!", "1/2^3": "1/2^{3}", r"2\frac{1}{2}": r"(2+\frac{1}{2})", r"2 \frac{1}{2}": r"(2+\frac{1}{2})",
    r"x2\frac{1}{2}": r"x2\frac{1}{2}", "0.5x": r"(\frac{5}{10})x", ".25x": r"(\frac{25}{100})x",
    "1.50": r"(\frac{150}{100})", "3.x": "3.x", "2(x)": r"2 \cdot (x)", "2 (x)": r"2 \cdot (x)", "x_2(y)": "x_2(y)",
    "x^{2}(y)": r"x^{2} \cdot (y)", "x_{2}(y)": "x_{2}(y)", "12(x)": r"12 \cdot (x)", "(x)2": r"(x) \cdot 2",
    "(x) 2": r"(x) \cdot 2", "(2)(3)": "(2)(3)", r"\pi(x)": r"\pi \cdot (x)", r"\pi (x)": r"\pi \cdot (x)",
    "a(x)": r"a \cdot (x)", "e(x)": r"e \cdot (x)", "f(x)": "f(x)", "g(x)": "g(x)", "h(x)": "h(x)",
    "i(x)": r"i \cdot (x)", "j(x)": r"j \cdot (x)", "k(x)": r"k \cdot (x)", "o(x)": r"o \cdot (x)", "p(x)": "p(x)",
    "q(x)": r"q \cdot (x)", "t(x)": r"t \cdot (x)", "u(x)": "u(x)", "v(x)": "v(x)", "w(x)": r"w \cdot (x)",
    "x(y)": r"x \cdot (y)", "z(y)": r"z \cdot (y)", "z (y)": r"z \cdot (y)", "xy(z)": "xy(z)", "F(x)": "F(x)",
    r"\theta(x)": r"\theta(x)", r"\frac12": r"\frac{1}{2}", r"\frac1{2}": r"\frac{1}{2}",
    r"\frac{1}2": r"\frac{1}{2}", r"\frac ab": r"\frac{a}{b}", r"\frac\pi2": r"\frac{\pi}{2}",
    r"\frac{a}{b}c": r"\frac{a}{b}c", r"\frac ab c": r"\frac{a}{b} c", r"\binom52": r"\binom{5}{2}",
    r"\binom{5}2": r"\binom{5}{2}", r"\sqrt2": r"\sqrt{2}", r"\sqrt x": r"\sqrt{x}", r"\sqrt\pi": r"\sqrt{\pi}",
    r"\sqrt[3]8": r"\sqrt[3]{8}", r"\sqrt [3] {8}": r"\sqrt[3]{8}", r"\sqrt{2}3": r"\sqrt{2}3",
    r"\sqrt(x+1)2": r"\sqrt{x+1}2", r"\sqrt((x))y": r"\sqrt{(x)}y", r"\frac{\frac12}3": r"\frac{\frac{1}{2}}{3}",
    r"\frac{\frac{1}{2}}3": r"\frac{\frac{1}{2}}{3}", r"\frac{{a}}b": r"\frac{{a}}{b}",
    r"\frac{1}A": r"\frac{1}{A}", r"\binom{n}K": r"\binom{n}{K}",
}  # fmt: skip

TEXTS = {
    "ABC": "abc", "abc": "abc", "No Solution.": "no solution", "no  solution": "no solution", "Yes!": "yes",
    "ab!": None, "Mary-Ann": "mary-ann", "O'Neil": "o'neil", "A & B": "a & b", "rock/paper": "rock/paper",
    "Dr. Smith": "dr. smith", "A.B": "a.b", "red and blue": None, "red or blue": None, "e": None, "i": None,
    "x": None, "X": "X", "(x)": "x", "(A)": "A", "é": None, "Été": "été", "x y": None, "x Y": "x y",
    "ab cd": "ab cd", "x  y": None, "A B": "a b", "9:05": "9:5", "09:05": "9:5", "9:05 am": "9:5am",
    "9:05 A.M.": "9:5am", "9:05 a. m.": "9:5am", "9 : 05": "9:5", "12:05:30": "12:5:30", "9 am": "9am",
    "9 p.m.": "9pm", "09 pm": "9pm", "999 am": None, "3:4": "3:4", "12345:1": None, "1:2:3": "1:2:3",
    "2024-05-17": "2024-5-17", "2024 - 05 - 17": "2024-5-17", "14-16": "14-16", "14--16": "14-16", "1-2-3": "1-2-3",
    "17/05/2024": "17/5/2024", "3/4": None, "1.2.3": "1.2.3", "1.2": None, "14 to 16": "14 to 16",
    "14to16": "14to16", "14 through 16": "14 through 16", "14 TO 16": "14 to 16", "(555) 123-4567": "(555)123-4567",
    "555 123-4567": "555 123-4567", "555-123-4567": "555-123-4567", "(555)123 - 4567": "(555)123-4567",
    "5551234567": None, "14-16 years": "14-16", "14 -- 16 years": "14-16", "14-16years": None, "CO2": "co2",
    "H2O": "h2o", "A1": "a1", "B12-c": "b12-c", "x2": "x2", "ab12": "ab12", "3D": "3d", "7UP": "7up", "3d": None,
    "3D-2": "3d-2", "3Dx": "3dx", "ISO-9001": "iso-9001", "a-1": "a-1", "A-1-2": None, "CH_4": "ch4",
    "C_6H_{12}O_6": "c6h12o6", "NaCl": "nacl", "CO_ {2}": "co2", "H_2": None, "xY": "xy", "XY": "xy", "Xy": "xy",
    "CO": "co", "C_2": None, r"\text{no solution}": "no solution", r"\text{a} b": None, r"a\,b": None, r"a\ b": None,
    "a~b": None, r"a\quad b": "a b", r"\frac12": None, "": None, "1": None, "1.5": None, "-5": None, "2x": None,
    "$5": None, "a_1": None, "A_1": None, "0-1": "0-1", "007-008": "7-8", "00:05": "0:5", "10:00": "10:0",
    "05/06/07": "5/6/7", "Room 5": None, "R2D2": "r2d2", "x-1": "x-1", "1st": None, "1-": None, "日本": "日本",
    "日本語!": "日本語", "ab.": "ab", "ab..": None, "ab?": None, "9:05 pm": "9:5pm", "9:05am": "9:5am", "9 AM": "9am",
    "9:5": "9:5", "123:4": "123:4", "Ab c": "ab c", "ab  cd": "ab cd", "a-b c": "a-b c", "no-one": "no-one",
    "x/y": "x/y", "A.B.": "a.b", "É": "É", "3-4-5": "3-4-5", "1/2/3": "1/2/3", "12.5.6": "12.5.6",
    "12 TO 14": "12 to 14", "12 through 14": "12 through 14", "3 - 4": "3-4", "1-2 Years": "1-2", "CO2x": "co2x",
    "3 to": None, "3 through": None, "to 3": None, "aB": "ab", "CaCO_3": "caco3",
    "C_{12}H_{22}": "c12h22", "H_ 2O": "h2o",
}  # fmt: skip

COMPARED = {
    "Tuesday": "tuesday", "TUESDAY.": "tuesday", "Yes!": "yes", "x": "x", "X": "X", "(x)": "x", "(A)": "A",
    "(ab)": "(ab)", " a  b ": "a b", "a - b": "a-b", "a : b": "a:b", "a / b": "a/b", "a , b": "a,b", "a + b": "a+b",
    "a * b": "a*b", "a = b": "a=b", "a < b": "a<b", "a > b": "a>b", "a ^ b": "a^b", "a _ b": "a_b",
    "a { b }": "a{b}", "a ( b )": "a(b)", "a [ b ]": "a[b]", "$5$": "5", "a.b": "a.b", "x.": "x", "A.": "A",
}  # fmt: skip


def test_one_notation() -> None:
    assert {text: clean(text) for text in CLEANED} == CLEANED


def test_what_the_parser_is_handed() -> None:
    assert {text: for_parser(text) for text in HANDED_OVER} == HANDED_OVER


def test_what_is_text_and_how_it_is_compared() -> None:
    found = {text: as_text(text) for text in TEXTS}
    assert {text: value and value.text for text, value in found.items()} == TEXTS
    assert {text: text_of(text) for text in COMPARED} == COMPARED
