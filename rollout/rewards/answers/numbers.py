"""Numbers as people and models write them: signs, thousands, percent, currencies, fractions, powers of ten."""

from __future__ import annotations

import re
from fractions import Fraction

MAX_CHARACTERS = 1000
"""Longer texts are taken for no number: Python refuses to convert very long ones."""
MAX_EXPONENT = 999
SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "k": 10**3,
    "m": 10**6,
    "mn": 10**6,
    "b": 10**9,
    "bn": 10**9,
}
SHORT_SCALES = {"k", "m", "mn", "b", "bn"}
"""They count after a currency only, as in ``$5 m``, and right after the number if they mean nothing else: ``5k``."""
PLAIN_SCALES = {"k", "mn", "bn"}
VULGAR = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
    "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8),
}  # fmt: skip
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")

_SPACE = r"(?:[ \u00a0\u2009\u202f]|\\[,;: ]|~)"
_COMMA = r"(?:,|\{,\}|\\!,|,\\!)"
_GROUPED = "|".join(rf"[0-9]{{1,3}}(?:{mark}[0-9]{{3}})++(?![0-9])" for mark in (_COMMA, _SPACE, "'"))
_MAGNITUDE = rf"(?:(?:{_GROUPED}|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++)"
_DASH = "[-\u2212]"
_CURRENCY = r"(?:US|CA|AU|A|C)?(?:\\?\$|€|£|¥|₹)"
_TEN = (
    r"(?:[eE](?P<e>[-+]?[0-9]{1,4})(?![0-9a-z])"
    rf"|\s*(?:×|·|\*|x|\\times|\\cdot)\s*10\s*(?:\^\s*(?:\{{\s*(?P<power>{_DASH}?[0-9]{{1,4}})\s*\}}|(?P<bare>{_DASH}?"
    r"[0-9]{1,4}))|(?P<raised>⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,4})))"
)
_VULGAR = "[" + "".join(VULGAR) + "]"
_LATEX_FRACTION = (
    rf"\\[dtc]?frac\s*(?:\{{\s*(?P<upper>{_DASH}?[0-9]++)\s*\}}\s*\{{\s*(?P<lower>[0-9]++)\s*\}}"
    r"|(?P<upper1>[0-9])(?P<lower1>[0-9]))"
)
_CORE = (
    rf"(?:(?P<whole>[0-9]++)(?:\s*(?P<vulgar>{_VULGAR})|\s*{_LATEX_FRACTION}|\s+(?P<num>[0-9]++)\s*[/⁄]\s*(?P<den>[0-9]++))"
    rf"|(?P<vulgar0>{_VULGAR})|{_LATEX_FRACTION.replace('upper', 'above').replace('lower', 'below')}"
    rf"|(?P<base>[0-9]++)(?:\s*\^\s*(?:\{{\s*(?P<of>{_DASH}?[0-9]{{1,3}})\s*\}}|(?P<to>{_DASH}?[0-9]{{1,3}}))(?![0-9.])"
    rf"|(?P<high>⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,3}}))"
    rf"|(?P<magnitude>{_MAGNITUDE}){_TEN}?(?:\s*[/⁄]\s*(?P<divisor>{_MAGNITUDE}))?)"
)
_TAIL = (
    rf"(?:\s*(?P<percent>\\?%|per\s?cent\b)"
    rf"|\s*(?P<scale>{'|'.join(sorted(SCALES, key=len, reverse=True))})(?:(?<=[a-z]{{5}})s)?\b(?![\^²³/])"
    r"|\s*(?P<money>[€£¥₹]))?"
)
_SIGN = rf"(?P<sign>[-+\u2212]?)\s*(?P<currency>{_CURRENCY})?\s*(?P<sign2>{_DASH}?)"
_NUMBER = re.compile(rf"{_SIGN}{_CORE}{_TAIL}", re.IGNORECASE)
_NO_NUMBER = (
    r"[0-9]++(?:[-\u2013/.:][0-9]++){2,}+"  # a date, a version, an address
    r"|[0-9]{1,2}:[0-9]{2}(?![0-9])|[0-9]++\s?:\s?[0-9]++"  # a time, a ratio
)
_MENTION = re.compile(
    rf"(?<![a-z0-9_\\^])(?<![0-9]\.)(?<![_^]\{{)(?:(?P<skip>{_NO_NUMBER})|(?P<core>{_CORE})(?P<tail>{_TAIL}))"
    r"(?P<glued>[a-z^_]*)",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    rf"(?:\b(?P<word>negative|minus)\s+|(?P<sign>[-\u2212\u2013])(?P<gap>\s*))?(?P<currency>{_CURRENCY}\s*)?"
    rf"(?P<inner>{_DASH}?)\Z",
    re.IGNORECASE,
)
_UNITS = re.compile(
    r"(?:st|nd|rd|th|[kcmnG]?m|k?g|mg|m?l|L|k?W|kWh|V|J|N|A|Hz|Pa|mph|kph|h|hrs?|s|mins?|ft|in|lbs?|oz|yd|mi|C|F|K|px|pts?"
    r"|years?|days?|hours?|minutes?|seconds?)\Z"
)
"""What may be written right after a number without making a name of it, as ``3D`` and ``2x`` are."""
_VERBS = re.compile(
    r"(?:\b(?:is|are|was|be|equals|of|to|about|approximately|at|get|give|gives)|[=:≈<>])[ \t]*\Z", re.IGNORECASE
)
_DIGITS = re.compile(r"[0-9]+")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|boxed|fbox)\s*\{([^{}]*)\}")
_UNIT_POWER = re.compile(r"(?<=[A-Za-z])(\s?)\^\s?\{?[23]\}?")
_DOUBT = re.compile(
    r"\b(?:or|and|not|no|nor|more|less|fewer|than|over|under|above|below|between|to|from|plus|minus|times|by|of|if|unless|maybe|"
    r"perhaps|unclear|unknown|least|most|wrong|but|except|half|twice|double|dozen|squared|cubed)\b|[<>≤≥≠±+*×÷=?|^{}]|n't",
    re.IGNORECASE,
)
BEFORE = 40
"""Characters before a number that may tell its sign."""


def parse_number(text: str) -> Fraction | None:
    r"""The exact value of ``text``, or None if it is not one number.

    Understands signs (also U+2212), decimals, exponents and powers, thousands parted by commas or by spaces, also those
    of LaTeX, fractions such as ``3/4`` and ``\frac{3}{4}``, mixed numbers such as ``2 2/3``, a percent sign (which
    divides by 100), a currency sign, words such as ``million``, a final full stop and surrounding white space.
    """
    bare = text.strip().strip("*").rstrip(".").strip()
    if len(bare) > MAX_CHARACTERS:
        return None
    for opening, closing in (("$", "$"), (r"\(", r"\)")):
        if len(bare) > len(opening + closing) and bare.startswith(opening) and bare.endswith(closing):
            bare = bare[len(opening) : -len(closing)].strip()
    found = _NUMBER.fullmatch(bare)
    if found is None or (found["sign"] and found["sign2"]):
        return None
    value = _value(found)
    if value is None:
        return None
    return -value if found["sign"] in ("-", "\u2212") or found["sign2"] else value


def _value(found: re.Match[str]) -> Fraction | None:
    """The value of a match without its sign."""
    value = _magnitude(found)
    if value is None:
        return None
    if found["percent"]:
        return value / 100
    if not found["scale"]:
        return value
    return value * SCALES[found["scale"].lower()] if _is_scale(found, bool(found["currency"])) else None


def _is_scale(found: re.Match[str], is_money: bool) -> bool:
    """Whether what follows a number multiplies it: ``3 million``, ``$5 m``, ``5k``, but not ``5 m`` nor ``300 K``."""
    scale: str = found["scale"]
    adjacent = found.string[found.start("scale") - 1].isdigit()
    return is_money or scale.lower() not in SHORT_SCALES or (scale in PLAIN_SCALES and adjacent)


def _magnitude(found: re.Match[str]) -> Fraction | None:
    if found["magnitude"] is not None:
        value = _decimal(found["magnitude"])
        power = found["e"] or found["power"] or found["bare"] or found["raised"]
        if power is not None:
            exponent = int(power.translate(SUPERSCRIPTS).replace("\u2212", "-"))
            if abs(exponent) > MAX_EXPONENT:
                return None
            value *= Fraction(10) ** exponent
        return _over(value, _decimal(found["divisor"])) if found["divisor"] else value
    if found["base"] is not None:
        exponent = int((found["of"] or found["to"] or found["high"]).translate(SUPERSCRIPTS).replace("\u2212", "-"))
        base = Fraction(found["base"])
        return None if len(found["base"]) > 9 or (base == 0 and exponent <= 0) else base**exponent
    whole = Fraction(found["whole"] or 0)
    vulgar = found["vulgar"] or found["vulgar0"]
    if vulgar:
        return whole + Fraction(*VULGAR[vulgar])
    above = next(found[name] for name in ("num", "upper", "upper1", "above", "above1") if found[name] is not None)
    below = next(found[name] for name in ("den", "lower", "lower1", "below", "below1") if found[name] is not None)
    part = _over(Fraction(above.replace("\u2212", "-")), Fraction(below))
    return None if part is None or (found["whole"] and part < 0) else whole + part


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub(r"[^0-9.]", "", text))


def _over(value: Fraction, divisor: Fraction) -> Fraction | None:
    return None if divisor == 0 else value / divisor


def last_number(text: str) -> str | None:
    """The last number that ``text`` mentions with its sign, currency, percent sign or scale, or None.

    As it is written, but for the sign, which is ``-`` or nothing; :func:`parse_number` reads it. A dash between two
    numbers is no sign (``14-16``); digits in dates, times, ratios and names (``14:30``, ``H2O``, ``2x``) are no number.
    """
    last = None
    for match in _MENTION.finditer(text):
        if match["skip"] is None and _stands_alone(match):
            last = match
    return None if last is None else _with_sign(text, last)


def only_number(text: str) -> Fraction | None:
    """The value of a short text that is one number and words around it that take nothing away from it, such as a unit.

    ``12 apples`` and ``about 12 km/h`` are; ``5 or 6``, ``5 more than x`` and ``not 5`` are not.
    """
    value = parse_number(text)
    if value is not None or len(text) > MAX_CHARACTERS // 10:
        return value
    bare = _UNIT_POWER.sub(r"\1", _WRAPPED.sub(r" \1 ", text.replace("**", "").replace("{,}", ",")))
    found = numbers_in(bare)
    if len(found) != 1 or len(_DIGITS.findall(bare)) > len(_DIGITS.findall(found[0])) or _DOUBT.search(bare):
        return None
    return parse_number(found[0])


def numbers_in(text: str) -> list[str]:
    """Every number that ``text`` mentions, as :func:`last_number` gives the last one."""
    return [
        _with_sign(text, match) for match in _MENTION.finditer(text) if match["skip"] is None and _stands_alone(match)
    ]


def _stands_alone(match: re.Match[str]) -> bool:
    glued: str = match["glued"]
    return not glued or _UNITS.match(glued) is not None


def _with_sign(text: str, match: re.Match[str]) -> str:
    before = text[max(0, match.start() - BEFORE) : match.start()]
    found = _BEFORE.search(before)
    assert found is not None  # it may match nothing at the end
    currency = found["currency"] or ""
    tail: str = match["tail"]
    if match["scale"] and not _is_scale(match, bool(currency)):
        tail = ""
    is_range = found["sign"] and not currency  # 14--16
    negative = not is_range if found["inner"] else _is_sign(before[: found.start()], found)
    return f"{'-' if negative else ''}{currency.strip()}{match['core']}{tail}"


def _is_sign(before: str, found: re.Match[str]) -> bool:
    """Whether a dash, or the word minus, before a number is its sign."""
    near = before[-1:]
    follows_number = re.search(r"[0-9)\]}%]\s*\Z", before) is not None
    if found["word"]:
        return found["word"].lower() == "negative" or not follows_number
    if not found["sign"] or near.isalnum() or follows_number:
        return False
    if found["gap"]:  # a bullet or a dash, unless a verb asks for a number
        return _VERBS.search(before) is not None
    return True
