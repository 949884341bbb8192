"""The expression that a response gives as its answer: in a box, a tag or a phrase, or else the last one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rollout.rewards.answers.claims import MAX_PHRASES, Claim, ClaimKind, boxed, phrases, tagged
from rollout.rewards.answers.runs import plain_runs
from rollout.rewards.answers.spans import Item, math_spans
from rollout.rewards.answers.words import is_operand

_FILLER = re.compile(
    r"(?:[\s:*_\"'`“‘>]|(?:therefore|thus|hence|so|simply|just|exactly|approximately|approx|about|roughly|around|"
    r"then|also|now|given by|equal to|indeed|clearly|actually|either|a total of|(?:the )?(?:number|value|expression|"
    r"fraction|integer|set|point|equation|interval|function|matrix|vector|ordered pair|ratio))\b"
    r"|(?<=approx)\.|,(?=\s))*+",
    re.IGNORECASE,
)
_NAMED_VALUE = re.compile(r"[A-Za-z][A-Za-z ]{0,40}=\s*")
_QUALIFIED = re.compile(
    r"\s*(?:more|less|times|fewer|greater|smaller|larger|of|out of|plus|minus|divided|multiplied|squared|cubed|"
    r"through|to|ways? to|lines?|steps?|paragraphs?|parts?)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[\s*_`\"')\]$]*(?:[.!;]|\n|\Z)|\s[\s*_]*[A-Za-z/]+[\s*_]*(?:[.!]|\n|\Z)")
_WORDY = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}")
_AND = re.compile(r"[\s*_`$]*(?:,|;)?\s*(?:(?:and|or)\b|&)[\s*_`]*", re.IGNORECASE)
_COMMA = re.compile(r"[\s*_`]*[,;][\s*_`]*")
_LISTS = re.compile(r"(?:\b(?:are|is|be|both|namely|values|solutions|roots)|[:=∈]|\\in)[\s*_`{(\[]*\Z", re.IGNORECASE)
_NAMED_FIRST = re.compile(r"[A-Za-z](?:_\w+)?\s*[=∈]")
_CLAUSE = re.compile(r"[.\n!?;,(]|\s(?:because|since|as|so|which|that|and|for)\b", re.IGNORECASE)
_DENIED = re.compile(
    r"(?:\b(?:not|cannot|never|rather than|instead of)|n['’]t)\s+(?:be\s+|equal to\s+)?\Z", re.IGNORECASE
)
_NOUN_AND = re.compile(
    r"\s+(?!(?:because|since|as|where|when|if|for)\b)[A-Za-z]+(?:\s[A-Za-z]+)?\s*(?:,|,?\s?and|,?\s?or)\s+",
    re.IGNORECASE,
)
_TERM = re.compile(r"(?:[0-9)}\]]|(?<![A-Za-z])[A-Za-z]|\\(?!q?quad)[A-Za-z]+)\s*\Z")
_VERB = re.compile(r"\b(?:is|are|be|equals|of|to)\s+\Z", re.IGNORECASE)
MAX_WORDS = 6
MAX_LETTERS = 40
MAX_NESTED = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """What is taken for the answer.

    Attributes:
        text: as it is written.
        end: where it ends in the response.
    """

    text: str
    end: int


def read_expression(text: str, is_whole: bool = True, wants_words: bool = False) -> str | None:
    r"""The final answer of a response as an expression, or None.

    The last claim counts: ``\boxed{}`` or ``\fbox{}``, ``<answer>`` tags, ``the answer is``, ``answer:`` or ``####``.
    After a box only a sentence that says nothing but another answer is one. Without a claim the last expression is
    taken: in LaTeX's delimiters, or a run of numbers, letters and operators in plain text, with its unit. Several that
    commas, "and" or "or" join are one list.

    Args:
        is_whole: whether the response ended by itself. In one that was cut, what is not inside a box or tag must not
            touch the end, where it might go on.
        wants_words: whether the answer is a word or two instead of an expression.
    """
    boxes, tags = boxed(text), tagged(text)
    firm = sorted((*boxes, *tags), key=lambda claim: claim.end)
    last = firm[-1] if firm else None
    found = _last_phrase(text, last, wants_words)
    if found is None and last is not None:
        return _inside(last, text, wants_words)
    if found is None and wants_words:
        spans = math_spans(text)
        return spans[-1].text if spans else None
    if found is None:
        items = [item for item in _items(text) if not _DENIED.search(text[max(0, item.start - 24) : item.start])]
        found = _joined_back(text, items) if items else None
    if found is None or (not is_whole and found.end >= len(text.rstrip())):
        return None
    return found.text


def _inside(claim: Claim, text: str, wants_words: bool) -> str | None:
    """The content of a box or a tag."""
    content = claim.content
    if claim.kind is ClaimKind.TAG:
        if boxed(content) or len(_WORDY.findall(re.sub(r"\\[A-Za-z]+", "", content))) > (
            MAX_WORDS if wants_words else 3
        ):
            return read_expression(content, wants_words=wants_words)
        phrase = _last_phrase(content, None, wants_words)
        return content if phrase is None else phrase.text
    for _ in range(MAX_NESTED):
        inner = boxed(content)
        content = inner[-1].content if inner else content
    if _is_negated(text[text.rfind("\n", 0, claim.start) + 1 : claim.start]):
        content = f"-({content})"
    if re.match(r"\s*\\?%", text[claim.end : claim.end + 4]) and not content.endswith("%"):
        content += r"\%"
    return content


def _is_negated(before: str) -> bool:
    """Whether what stands before a box in its line ends with its sign: no dash of a list, no minus between terms."""
    dash = re.search(r"[-\u2212](\s*)\Z", before)
    if dash is None or _TERM.search(before, 0, dash.start()):
        return False
    left = before[: dash.start()]
    if _VERB.search(left):
        return True
    if not left.strip() or left.rstrip()[-1].isalpha():  # a bullet, a hyphen or a dash between words has no such place
        return not dash[1] and left[-1:] in ("", " ")
    return True


def _items(text: str, in_line: bool = False) -> list[Item]:
    """All expressions, in order; ``in_line``: something stands before the text in its line."""
    spans = math_spans(text)
    found: list[Item] = []
    at = 0
    for span in [*spans, Item(len(text), len(text), "")]:
        found += plain_runs(text, at, span.start, in_line or bool(found))
        if span.text:
            found.append(span)
        at = span.end
    return found


def _joined_back(text: str, items: list[Item]) -> Reading:
    """The last item, with those before it that belong to the same list."""
    first = len(items) - 1
    in_list = False
    while first > 0:
        between = text[items[first - 1].end : items[first].start]
        if _AND.fullmatch(between):
            in_list = True
        elif not (_COMMA.fullmatch(between) and (in_list or _is_list(text, items, first))):
            break
        first -= 1
    return _reading(items[first:])


def _is_list(text: str, items: list[Item], index: int) -> bool:
    """Whether items that only commas part are a list: delimited, or announced by "are", a colon or a name."""
    if items[index].delimited and items[index - 1].delimited:
        return True
    while index > 0 and _COMMA.fullmatch(text[items[index - 1].end : items[index].start]):
        index -= 1
    announced = _LISTS.search(text[max(0, items[index].start - 20) : items[index].start])
    return announced is not None or _NAMED_FIRST.match(items[index].text) is not None


def _reading(items: list[Item]) -> Reading:
    return Reading(", ".join(item.text for item in items), items[-1].end)


def _last_phrase(text: str, firm: Claim | None, wants_words: bool) -> Reading | None:
    """The answer of the last phrase that has one, if no box or tag comes after it."""
    for claim in reversed(phrases(text)[-MAX_PHRASES:]):
        if firm is not None and claim.start < firm.end:
            return None
        found = _words_after(claim) if wants_words else _expression_after(claim, firm is not None)
        if found is not None:
            return found
    return None


def _expression_after(claim: Claim, after_box: bool) -> Reading | None:
    """The expression right after a phrase; fillers such as "about" and a name with ``=`` may stand between."""
    content = claim.content
    start = _FILLER.match(content).end()  # type: ignore[union-attr]
    named = _NAMED_VALUE.match(content, start)
    items = _items(content, in_line=True)
    at = next((i for i, item in enumerate(items) if item.end > start), None)
    if at is None or items[at].start > start:
        alone = _letters_alone(content, start)
        if alone is not None:
            return Reading(alone, claim.end + start + len(alone))
    if at is None:
        return None
    gap = content[start : items[at].start]
    if gap.strip(" $-\u2212*") and not (named is not None and items[at].start <= named.end()):
        return None
    last = at
    while last + 1 < len(items) and (
        any(p.fullmatch(content, items[last].end, items[last + 1].start) for p in (_AND, _COMMA, _NOUN_AND))
    ):
        last += 1
    rest = content[items[last].end :]
    if re.match(r"[\s*_)]*\?", rest) or _QUALIFIED.match(rest):
        return None
    if after_box and not _SENTENCE_END.match(rest):
        return None
    found = _reading(items[at : last + 1])
    if gap.strip(" $*") in ("-", "\u2212"):
        found = Reading(f"-{found.text}", found.end)
    return Reading(found.text, claim.end + found.end)


def _letters_alone(content: str, start: int) -> str | None:
    """An answer without a digit, such as ``e`` or ``sin(x)``, that is all of its line."""
    line = content[start:].split("\n", 1)[0].strip(" *_`.")
    return line if 0 < len(line) <= MAX_LETTERS and is_operand(line) else None


def _words_after(claim: Claim) -> Reading | None:
    """The few words that follow a phrase, up to the end of the clause."""
    start = _FILLER.match(claim.content).end()  # type: ignore[union-attr]
    end = _CLAUSE.search(claim.content, start)
    stop = len(claim.content) if end is None else end.start()
    words = claim.content[start:stop].strip(" \t*_\"'`“”‘’$")
    if not words or len(words.split()) > MAX_WORDS or re.match(r"(?:not|wrong|unclear|unknown)\b", words):
        return None
    return Reading(words, claim.end + stop)
