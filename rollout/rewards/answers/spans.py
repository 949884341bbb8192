"""Mathematics in a text: what stands between delimiters of LaTeX, told from amounts of money."""

from __future__ import annotations

import re
from dataclasses import dataclass

_DELIMITER = re.compile(r"\\.|\$\$|\$", re.DOTALL)
_CLOSING = {"\\(": "\\)", "\\[": "\\]"}
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}\s+[A-Za-z]{2,}")
_COMMAND_TEXT = re.compile(r"\\[A-Za-z]+\s*(?:\{[^{}]*\})?")
_ENVIRONMENT = re.compile(r"\\begin\{(align|equation|gather|eqnarray|multline)(\*?)\}")


@dataclass(frozen=True, slots=True)
class Item:
    """An expression in a text.

    Attributes:
        start, end: where it stands, delimiters included.
        text: the expression itself.
        delimited: whether LaTeX's delimiters mark it as mathematics.
    """

    start: int
    end: int
    text: str
    delimited: bool = False


def math_spans(text: str) -> list[Item]:
    r"""What stands in ``$``, ``$$``, ``\(``, ``\[`` or an environment for equations, in order.

    A dollar sign opens mathematics if no space follows and one closes it in the same paragraph that has no space before
    and no digit after it: ``$5 and $7`` are amounts.
    """
    found: list[Item] = []
    opened: tuple[int, int, str] | None = None  # start of the delimiter, end of it, what closes it
    for match in _DELIMITER.finditer(text):
        mark, start, end = match.group(0), match.start(), match.end()
        if opened is not None and mark == opened[2] and _closes(text, opened[1], start, end, mark):
            found.append(Item(opened[0], end, text[opened[1] : start].strip(), delimited=True))
            opened = None
        elif mark in ("\\(", "\\["):
            opened = (start, end, _CLOSING[mark])
        elif mark == "$" and (opened is None or opened[2] == "$"):
            opened = (start, end, "$")
        elif mark == "$$" and (opened is None or opened[2] == "$"):
            opened = (start, end, "$$")
    spans = [item for item in found if item.text]
    return sorted([*spans, *_environments(text, spans)], key=lambda item: item.start)


def _closes(text: str, begin: int, start: int, end: int, mark: str) -> bool:
    """Whether a closing delimiter at ``start`` goes with what was opened before ``begin``."""
    if mark != "$":
        return True
    content = text[begin:start]
    if not content.strip() or "\n\n" in content or len(content) > 2000:
        return False
    if text[end : end + 1].isdigit() or _PROSE.search(_COMMAND_TEXT.sub("", content)):
        return False
    spaces = content[0].isspace() + content[-1].isspace()
    return spaces == 0 or (spaces == 2 and not re.search(r"[A-Za-z]{2,}", _COMMAND_TEXT.sub("", content)))


def _environments(text: str, spans: list[Item]) -> list[Item]:
    """Equations without delimiters around them."""
    found: list[Item] = []
    inside = iter(spans)
    span = next(inside, None)
    for match in _ENVIRONMENT.finditer(text):
        while span is not None and span.end <= match.start():
            span = next(inside, None)
        if (span is not None and span.start < match.start()) or (found and match.start() < found[-1].end):
            continue
        closing = f"\\end{{{match[1]}{match[2]}}}"
        end = text.find(closing, match.end(), match.end() + 5000)
        if end >= 0:
            found.append(
                Item(match.start(), end + len(closing), text[match.start() : end + len(closing)], delimited=True)
            )
    return found
