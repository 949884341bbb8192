"""Whether a pattern can find an answer at all, so that a reference that it never finds is told before a run."""

from __future__ import annotations

import re
from itertools import product

_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
"""Of a regular expression: an escape, a class of characters, or any one character."""
_FLAGS = re.compile(r"\(\?[a-zA-Z-]+[:)]")
_SPECIAL = set(".^$*+?{}[]|()")
_LOOKING_AROUND = {"^", "$", r"\A", r"\Z", r"\b", r"\B"}
_PADDINGS = ("", " ", "\n", "\t")


def can_find(pattern: str, answer: str, ignore_case: bool = False) -> bool:
    """Whether there is a text in which the last match of ``pattern`` has ``answer`` in its group.

    White space at the ends of the group does not count. True where it cannot be told for certain.

    Args:
        pattern: a regular expression with one group, in which ``^`` and ``$`` match at lines.
        answer: without white space at its ends.
        ignore_case: upper and lower case do not count.
    """
    flags = re.MULTILINE | (re.IGNORECASE if ignore_case else re.NOFLAG)
    parts = _parts(pattern)
    if parts is None:
        return True
    before, inside, after = parts
    padded = [f"{left}{answer}{right}" for left, right in product(_PADDINGS, _PADDINGS)]
    fits = _fits(inside)
    # The group by itself cannot be the answer: no text around it changes that.
    if fits and not any(re.fullmatch("".join(inside), text, flags) for text in padded):
        return False
    around = (_literal(before, "^"), _literal(after, "$"))
    if around[0] is None or around[1] is None:
        return True
    # Only one text can stand around the group, so if that one is read otherwise every text is: \boxed{(.*?)} finds
    # no braces within braces.
    return any(_found(pattern, f"{around[0]}{text}{around[1]}", flags, answer) for text in padded)


def _found(pattern: str, text: str, flags: re.RegexFlag, answer: str) -> bool:
    groups = [match.group(1) for match in re.finditer(pattern, text, flags)]
    return bool(groups) and groups[-1] is not None and groups[-1].strip() == answer


def _parts(pattern: str) -> tuple[list[str], list[str], list[str]] | None:
    """The tokens before, in and after the only group; None if options within the pattern change what they mean."""
    tokens = _TOKEN.findall(pattern)
    openings = [index for index, token in enumerate(tokens) if token == "(" and _captures(tokens, index)]
    if _FLAGS.search(pattern) or len(openings) != 1:
        return None
    first = begin = openings[0]
    if tokens[begin + 1] == "?":  # the group has a name
        first = tokens.index(">", begin)
    depth = 0
    for index in range(begin, len(tokens)):
        depth += (tokens[index] == "(") - (tokens[index] == ")")
        if depth == 0:
            return tokens[:begin], tokens[first + 1 : index], tokens[index + 1 :]
    return None


def _captures(tokens: list[str], index: int) -> bool:
    return tokens[index + 1 : index + 2] != ["?"] or tokens[index + 1 : index + 4] == ["?", "P", "<"]


def _fits(inside: list[str]) -> bool:
    """Whether what a group matches does not depend on what stands around it."""
    looks = any(token in _LOOKING_AROUND or re.fullmatch(r"\\\d", token) for token in inside)
    return not looks and re.search(r"\(\?(?!:|>)", "".join(inside)) is None


def _literal(tokens: list[str], anchor: str) -> str | None:
    """The one text that tokens match, ``anchor`` at their outer end aside; None if there are several."""
    ends = tokens[1:] if anchor == "^" and tokens[:1] == ["^"] else tokens
    ends = ends[:-1] if anchor == "$" and ends[-1:] == ["$"] else ends
    if any(token in _SPECIAL or token.startswith("[") or re.fullmatch(r"\\\w", token) for token in ends):
        return None
    return "".join(token.removeprefix("\\") for token in ends)
