"""Units of measurement and money: their names, and which names mean the same unit."""

from __future__ import annotations

import re

_GROUPS = """
mm millimeter millimetre
cm centimeter centimetre
m meter metre
km kilometer kilometre
in inch
ft foot feet
yd yard
mi mile
mg milligram
g gram gramme
kg kilogram kilo
lb pound
oz ounce
t ton tonne
ml mL milliliter millilitre
l L liter litre
gal gallon
s sec second
min minute
h hr hour
day
week
month
yr year
m/s mps
km/h kmh kph
mph
N newton
J joule
kJ kilojoule
W watt
kW kilowatt
kWh
V volt
A amp ampere
Pa pascal
kPa
Hz hertz
K kelvin
mol mole
ohm
°C celsius °celsius
°F fahrenheit °fahrenheit
deg degree °
rad radian
$ dollar usd
¢ cent
€ euro eur
£ gbp
¥ yen
₹ rupee
unit
"""
NAMES: dict[str, str] = {name: line.split()[0] for line in _GROUPS.strip().splitlines() for name in line.split()}
"""Name of a unit -> its usual sign."""
AMBIGUOUS = frozenset({"in", "m", "g", "t", "l", "L", "s", "h", "N", "J", "W", "V", "A", "K", "min", "day", "oz"})
"""Signs that may as well be variables or words: they are units after a number and a space only, or upright."""
_POWER = r"(?:\s?(?:\^\s?\{?[23]\}?|²|³|squared\b|cubed\b))?"
_LONG = sorted((re.escape(name) for name in NAMES if name[0].isalpha()), key=len, reverse=True)
_UNIT = rf"(?:(?:square|cubic|sq\.?|cu\.?)\s)?(?:{'|'.join(_LONG)})(?:e?s)?(?![A-Za-z0-9]){_POWER}"
UNIT_PHRASE = re.compile(
    r"\s?(?:\\?%|per\s?cent(?:age points?)?\b|[€£¥₹¢]|°\s?(?:[CF]|Celsius|Fahrenheit)?(?![A-Za-z])|\^?\\circ\s?[CF]?"
    r"|(?:degrees?\s)?(?:Celsius|Fahrenheit)\b"
    rf"|(?:hundred|thousand|million|billion|trillion|dozen)s?\b(?:\s{_UNIT})?"
    rf"|{_UNIT}(?:\s?/\s?{_UNIT}|\sper\s{_UNIT})?)"
)
"""A unit, percent sign or scale word right after a number."""


def canonical(unit: str) -> str:
    """One spelling for a unit: sign instead of name, no plural, no spaces; powers as ``^2``. Unknown words are kept."""
    if unit.strip() in ("$", "\\$"):
        return "$"
    text = re.sub(r"\\(?:text|mathrm|textbf|mbox|operatorname|rm)\b|[{}$]|\\[,;:! ]|~", " ", unit.replace("\\$", "¤"))
    text = (
        text.replace("¤", "$")
        .replace("²", "^2")
        .replace("³", "^3")
        .replace("\\circ", "°")
        .replace("^°", "°")
        .strip(" .")
    )
    text = re.sub(r"\bdegrees?\s+(?=celsius|fahrenheit)", "", text, flags=re.IGNORECASE)
    text = re.sub(r"°\s([CF])\b", r"°\1", text)
    text = re.sub(r"\b(?:square|sq\.?)\s+([^\s/]+)", r"\1^2", text)
    text = re.sub(r"\b(?:cubic|cu\.?)\s+([^\s/]+)", r"\1^3", text)
    text = re.sub(r"\s+squared\b", "^2", text)
    text = re.sub(r"\s+cubed\b", "^3", text)
    text = re.sub(r"\s+per\s+", "/", text)
    text = re.sub(r"\s*\^\s*", "^", text)
    return "/".join(_one(part) for part in text.split("/"))


def _one(part: str) -> str:
    name, power, exponent = part.strip().partition("^")
    for form in (name, name.lower(), name.lower().removesuffix("s"), name.lower().removesuffix("es")):
        if form in NAMES:
            return NAMES[form] + power + exponent.strip()
    words = [word.removesuffix("s") for word in name.lower().split()]
    return " ".join(words) + power + exponent.strip()
