"""One notation for the many in which models write the same expression: LaTeX without ornament."""

from __future__ import annotations

import re

from rollout.rewards.math_grader.brackets import encloses

_UNICODE = {
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "\u2212": "-", "\u2013": "-", "\u2012": "-",
    "\u2010": "-", "\u2011": "-", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ",
    "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "⁄": "/",
    "∕": "/", "′": "'", "’": "'", "°": r"^\circ ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
    "λ": r"\lambda ", "μ": r"\mu ", "σ": r"\sigma ", "φ": r"\phi ", "ω": r"\omega ", "⟨": r"\langle ", "⟩": r"\rangle ",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2002": " ", "\u2003": " ", "\u200b": "", "∣": "|",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}",
    "⅙": r"\frac{1}{6}", "⅚": r"\frac{5}{6}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}",
}  # fmt: skip
_TRANSLATED = str.maketrans(_UNICODE)
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_RAISED_TO = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_LOWERED_TO = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp"
_SCALE = "(C|F|Celsius|Fahrenheit)"
_REPLACED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(\\(?:begin|end)\{[a-z]+)\*\}", r"\1}"),
        (r"\\(?:left|right|bigg?[lrm]?|Bigg?[lrm]?|mleft|mright)(?![a-z])\s*\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|boldsymbol|bf|rm|it|mathstrut|strut)(?![a-z])", ""),
        (r"\\label\s*\{[^{}]*\}|\\tag\*?\s*\{[^{}]*\}", ""),
        (r"\\[dtc]frac|\\nicefrac|\\sfrac", r"\\frac"),
        (r"\\[dt]binom", r"\\binom"),
        (r"\\(?:textbf|textit|textrm|textsf|texttt|textnormal|mbox|hbox|emph)\s*(?=\{)", r"\\text"),
        (r"\\(?:mathrm|mathbf|mathit|mathsf|operatorname\*?)\s*\{\s*([A-Za-z])\s*\}", r"\1 "),
        (rf"\\operatorname\*?\s*\{{\s*({_FUNCTIONS})\s*\}}", r"\\\1 "),
        (r"\\(?:mathrm|mathbf|mathit|mathsf|operatorname\*?|mathcal)\s*(?=\{)", r"\\text"),
        (r"(?:^|(?<==)\s*)<([^<>=]+,[^<>=]+)>$", r"\\langle \1\\rangle "),
        (r"\\leqslant|\\leq(?![a-z])|<=|=<", r"\\le "),
        (r"\\geqslant|\\geq(?![a-z])|>=", r"\\ge "),
        (r"\\neq(?![a-z])|!=|\\not\s*=", r"\\ne "),
        (r":=", "="),
        (r"\\lt(?![a-z])", "<"),
        (r"\\gt(?![a-z])", ">"),
        (r"\\(?:simeq|approxeq|thickapprox)|~=|≅", r"\\approx "),
        (r"\\varnothing", r"\\emptyset "),
        (r"\\(?:lvert|rvert|vert|mid)(?![a-z])", "|"),
        (r"\\lbrace", r"\\{"),
        (r"\\rbrace", r"\\}"),
        (r"\\lbrack", "["),
        (r"\\rbrack", "]"),
        (r"\{\s*,\s*\}", ","),
        (r"\s*\\!\s*", ""),
        (r"\s*(?:\\(?:ldots|dots|cdots)(?![a-z])|…)", "..."),
        (r"(?:\^\s*\{\s*\\(?:circ|degree)\s*\}|(?:\^\s*\\circ|\\(?:text)?degree)(?![a-z]))\s*", r"^\\circ "),
        (rf"\^\\circ (?:\\text\s*\{{\s*{_SCALE}\s*\}}|{_SCALE}(?![A-Za-z]))", r" \\text{°\1\2}"),
        (r"\\(?:Rightarrow|Longrightarrow|iff|therefore)", r"\\implies "),
        (r"\\%", "%"),
        (r"(?<![\\A-Za-z])sqrt\s*\(", r"\\sqrt("),
        (r"√", r"\\sqrt "),
        (r"∛\s*(\d+|[a-z])", r"\\sqrt[3]{\1}"),
        (rf"(?<![\\A-Za-z])({_FUNCTIONS})(?![a-z])", r"\\\1 "),
        (r"(?<![\\A-Za-z])(max|min|gcd)(?=\s*\()", r"\\\1 "),
        (r"(?<=\d)(?:\s*x\s*(?=10\s*\^)|\s+x\s+(?=\d))", r" \\times "),
        (r"(?<![\\A-Za-z])pi(?![a-z])", r"\\pi "),
        (r"(?<![\\A-Za-z])(?:infinity|infty|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"\*\*", "^"),
        (r"\*", r"\\cdot "),
    )
)  # fmt: skip
_ORNAMENT = re.compile(r"\\boxed\s*(?=\{)|\\fbox\s*(?=\{)|\\[hv]?phantom\s*\{[^{}]*\}")
_INTRODUCED = re.compile(
    r"\s*(?:\\text\s*\{)?\s*(?:the\s+|final\s+)*(?:answer\s*(?:is|:)|approximately|approx\.?|about|roughly|around|"
    r"exactly|equal to|equals)(?![A-Za-z])\s*:?\s*\}?",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """``text`` in one notation, without delimiters, ornament, and punctuation at its end."""
    found = re.sub(r"\{([^{}]+)\\over(?![A-Za-z])([^{}]+)\}", r"\\frac{\1}{\2}", text)
    found = _undelimited(found)
    found = _RAISED.sub(lambda match: f"^{{{match.group(0).translate(_RAISED_TO)}}}", found)
    found = _LOWERED.sub(lambda match: f"_{{{match.group(0).translate(_LOWERED_TO)}}}", found)
    found = _ORNAMENT.sub("", found.translate(_TRANSLATED))
    for pattern, replacement in _REPLACED:
        found = pattern.sub(replacement, found)
    introduction = _INTRODUCED.match(found)
    found = _undelimited(found if introduction is None else found[introduction.end() :])
    return re.sub(r"\s+", " ", found).strip()


def _undelimited(text: str) -> str:
    """Without delimiters around the whole, markdown, and punctuation at the end."""
    found, before = text.strip(), None
    while found != before:
        before = found
        found = found.strip(" \n\t*`").rstrip(",;:\\ \n\t")  # also "\\," and "\\\\", a space and a line break of LaTeX
        found = found if found.endswith("...") else found.rstrip(".").strip()
        for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
            inner = found[len(opening) : -len(closing)]
            whole = len(found) >= len(opening + closing) and found.startswith(opening) and found.endswith(closing)
            if whole and not found.endswith("\\$") and opening not in inner and closing not in inner:
                found = inner.strip()
        if encloses(found, "{", "}"):
            found = found[1:-1]
        elif (match := re.fullmatch(r"\\text\s*(\{.*\})", found, re.DOTALL)) and encloses(match[1], "{", "}"):
            found = match[1][1:-1]
    return found


_ARGUMENT = re.compile(r"(?P<command>\\(?P<two>frac|binom)|\\sqrt(?:\s*\[[^\]]*\])?|\^)")
_SYMBOL = re.compile(r"\s*(\\[A-Za-z]+|[0-9A-Za-z])")


def for_parser(text: str) -> str:
    r"""A cleaned expression as the parser of LaTeX wants it: arguments in braces, products spelled out, no decimals.

    ``2(3)`` would be read as 2 + 3, ``1/2x`` as 1/(2x), ``2^10`` is 2^{10}, and decimals become exact fractions.
    """
    found = re.sub(r"\\(?:quad|qquad|[,;: ])|~", " ", text)
    found = re.sub(r"(\d),(?=\d{3}(?!\d))", r"\1", found)
    found = re.sub(r"(\d) (?=\d{3}(?!\d))", r"\1", found)
    found = re.sub(r"\^\s*\\circ", "", found)
    found = re.sub(r"\\log\s*_\s*(\d+|[a-z])", r"\\log_{\1}", found)
    found = re.sub(r"\^\s*(-?\d+)", r"^{\1}", found)
    found = _braced_arguments(found)
    found = re.sub(r"(\\(?:sin|cos|tan|cot|sec|csc|ln|log))\s*(\\[a-z]+|[a-z])(?=\s*/)", r"\1(\2)", found)
    found = re.sub(r"(?<![\d./])(\d+)\s*/\s*(\d+)(?![\d.!^])", r"\\frac{\1}{\2}", found)
    found = re.sub(r"(?<![\w.}])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}", r"(\1+\\frac{\2}{\3})", found)
    found = re.sub(
        r"(\d*)\.(\d+)", lambda match: rf"(\frac{{{int(match[1] + match[2])}}}{{{10 ** len(match[2])}}})", found
    )
    found = re.sub(r"(?<![_{\d])(\d+)\s*\(", r"\1 \\cdot (", found)
    found = re.sub(r"\)\s*(?=\d)", r") \\cdot ", found)
    found = re.sub(r"\\pi\s*\(", r"\\pi \\cdot (", found)
    return re.sub(r"(?<![A-Za-z\\])([a-eijk-oq-tw-z](?:\^\{[^{}]*\})?)\s*\(", r"\1 \\cdot (", found)


def _braced_arguments(text: str) -> str:
    r"""``\frac12``, ``\sqrt2`` and ``x^(y)`` with braces around their arguments."""
    parts: list[str] = []
    at = 0
    while (command := _ARGUMENT.search(text, at)) is not None:
        parts.append(text[at : command.start()] + command["command"].replace(" ", ""))
        at = command.end()
        for _ in range(2 if command["two"] else 1):
            symbol = _SYMBOL.match(text, at)
            opening = re.compile(r"\s*\{" if command["two"] else r"\s*[{(]").match(text, at)
            if symbol is not None:
                parts.append(f"{{{symbol[1]}}}")
                at = symbol.end()
            elif opening is not None:
                end = _closing(text, opening.end() - 1)
                parts.append(f"{{{_braced_arguments(text[opening.end() : end])}}}")
                at = end + 1
    return "".join([*parts, text[at:]])


def _closing(text: str, at: int) -> int:
    """Position of the bracket that closes the one at ``at``; the end if none does."""
    depth = 0
    for index in range(at, len(text)):
        depth += (text[index] in "([{") - (text[index] in ")]}")
        if depth == 0:
            return index
    return len(text)
