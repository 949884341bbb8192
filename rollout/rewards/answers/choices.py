"""The letter that a response to a multiple-choice question gives as its answer."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from rollout.rewards.answers.claims import MAX_PHRASES, REACH, Claim, ClaimKind, boxed, tagged

OPENING = r"[\s*_`\"'“‘«(\[{<]*+"
CLOSING = r"[\s*_`\"'”’»)\]}>]*+"
ARTICLES = "AI"
"""Letters that are words, too."""
NAMED = r"(?:(?i:(?:the\s+)?(?:option|choice|letter|alternative)\b)[\s:]*+)?"
FILLERS = r"(?:(?i:therefore|thus|hence|clearly|definitely|obviously|indeed|simply|just|actually),?\s*+)?"

_CLAIM = re.compile(
    r"(?<![A-Za-z])(?:answer(?![A-Za-rt-z])[*_`]*+(?P<verb>\s*(?:is|would be|must be|should be)\b)?"
    r"(?P<colon>\s*[:=\u2192]|\s+-+>?(?=\s))?"
    r"|(?:correct|right|best)\s+(?:option|choice|letter)(?![A-Za-z])[*_`]*+"
    r"(?:\s+(?:is|would be)\b\s*(?P<colon1>:)?|\s*(?P<colon2>:))"
    r"|choose\s+(?=option|choice))"
    r"|^#{4,}(?=\s*\S)",
    re.IGNORECASE | re.MULTILINE,
)
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf)|mbox|operatorname|boldsymbol|bf|rm)\s*(?=[{\s])"
    r"|\\(?:left|right|displaystyle|quad|qquad)|\\[()\[\],;:! ]|\$|~|\u200b"
)
_UPRIGHT_AND = re.compile(r"\\(?:text|mathrm)\s*\{\s*,?\s*(and|or)\s*\}")
_VOID = re.compile(
    r"\s*(?:not|neither|none|both|all|either|unclear|unknown|ambiguous|uncertain|undetermined|impossible)\b",
    re.IGNORECASE,
)
_BEFORE_VERDICT = re.compile(
    r"(?:^|[,:]|\b(?:so|thus|hence|therefore|option|choice|that|letter|and))[\s*_\"'(\[$]*\Z", re.IGNORECASE
)
_CONDITION = re.compile(
    r"\b(?:if|suppose|supposing|assume|assuming|whether|why|not|unless|were|says?|said|claims?)\b", re.IGNORECASE
)
_RETRACTION = re.compile(
    r"(?:^|[.!?\n\u2014]|\s-\s)\s*[*_(]*"
    r"(?:oh\b|hm+|wait|no\b(?!\s(?:doubt|problem|need|other|matter))|nope\b|actually|scratch that|correction|sorry|"
    r"oops|on second thought)(?P<rest>[^\n]*)",
    re.IGNORECASE,
)


def find_choice(text: str, letters: str) -> str | None:
    r"""The one letter that ``text`` gives as its answer, or None.

    A claim is ``answer: B``, ``the answer is (B)``, ``the correct option is B``, ``B is correct``, ``\boxed{\text{B}}``
    or ``<answer>B</answer>``. Without one, the letter may be the last line, as in ``(B).``, if no other is a letter,
    or stand before its text in a single line, or after the last ``=``.

    The last claim counts. It must name exactly one letter, in upper case, that stands alone: ``answer: A or B``,
    ``answer: Apple`` and ``the answer is A cat`` are no answers, and neither is a letter that is taken back
    (``Answer: B. Wait, C``). The choice's text may follow after a mark, as in ``answer: B) iron``.
    """
    letter = f"([{re.escape(letters)}])(?![A-Za-z0-9])(?!['’][a-z])"
    claims = sorted(
        (*boxed(text), *tagged(text), *_claims(text), *_verdicts(text, letter)), key=lambda claim: claim.end
    )
    for claim in reversed(claims):
        choice = _choice_in(claim.content, letter)
        if choice is None and claim.kind is ClaimKind.TAG and (_CLAIM.search(claim.content) or boxed(claim.content)):
            return find_choice(claim.content, letters)
        if choice is not None:
            return None if _is_taken_back(text[claim.end : claim.end + REACH], choice, letter) else choice
        if claim.kind is not ClaimKind.BOX and (claim.marked or _VOID.match(claim.content)):
            return None
        if claim.kind is ClaimKind.BOX and re.search("[A-Za-z]", claim.content):
            return None
    if claims:
        return None
    return _by_place(text, letter)


def _bare(text: str) -> str:
    """Without the wrappers of LaTeX, whose braces stay."""
    return _WRAPPER.sub("", _UPRIGHT_AND.sub(r" \1 ", text))


def _claims(text: str) -> Iterator[Claim]:
    """What follows a phrase in its line; in the next one with a word in it, if the phrase ends its line."""
    for match in deque(_CLAIM.finditer(text), maxlen=MAX_PHRASES):
        rest = text[match.end() : match.end() + REACH]
        line, _, after = rest.partition("\n")
        colon = match["colon"] or match["colon1"] or match["colon2"] or match.group(0).startswith("#")
        if not re.search(r"\w", line) and (colon or match["verb"] or _is_heading(text, match)):
            line = next((found for found in after.split("\n") if re.search(r"\w", found)), "")
        yield Claim(ClaimKind.PHRASE, match.start(), match.end(), line, bool(colon))


def _is_heading(text: str, match: re.Match[str]) -> bool:
    """Whether ``answer`` stands in a line of its own, such as ``### Answer`` or ``**Final answer**``."""
    begin = text.rfind("\n", 0, match.start()) + 1
    return len(text[begin : match.start()].strip("#*_ \t").split()) <= 2


def _verdicts(text: str, letter: str) -> list[Claim]:
    """``Option B is correct`` and ``(B) is the right answer``, not as a condition; none if several letters are."""
    pattern = re.compile(
        rf"{letter}[*_)\]}}\"'$]*+\s++(?:is|must be)\s(?:the\s)?"
        r"(?:(?:most|only|single|final)\s)?"
        r"(?:(?:correct|right|best)(?:\s(?:answer|option|choice|one))?|answer)"
        r"(?=\s*[.,!*)]|\s*$|\s(?:because|since|as|here|and|but|while)\b)",
        re.MULTILINE,
    )
    found = []
    for match in pattern.finditer(text):
        before = text[max(0, match.start() - 200) : match.start()]
        sentence = re.split(r"[.!?;\n]", before)[-1]
        if _BEFORE_VERDICT.search(sentence) and not _CONDITION.search(sentence):
            found.append(Claim(ClaimKind.PHRASE, match.start(), match.end(), match.group(1)))
    return found if len({claim.content for claim in found}) == 1 else []


def _choice_in(content: str, letter: str) -> str | None:
    """The one letter that a claim begins with."""
    bare = _bare(content)
    found = re.match(rf"[\s:]*{OPENING}{FILLERS}{NAMED}{OPENING}{letter}", bare)
    if found is None:
        return None
    choice, rest = found.group(1), bare[found.end() :]
    if re.match(rf"{CLOSING}\s*+\?", rest) or _names_another(rest, letter):
        return None
    if re.match(rf"{CLOSING}(?:(?:is|was|seems)\s+(?:not|wrong|incorrect|false)\b|(?:isn|wasn|can)['’]t)", rest):
        return None
    if choice in ARTICLES and re.match(r"\s++(?!(?:because|since|as|is|due|based|given|and not|not|but)\b)[a-z]", rest):
        return None
    return choice


def _names_another(rest: str, letter: str) -> bool:
    """Whether a second letter follows the first one as an answer, not as the subject of another clause."""
    both = r"(?:(?:,\s*+)?(?:[oO]r|and)|/|\\?&|\+)\s*(?:maybe|possibly|perhaps|also|even|probably)?"
    if re.match(rf"{CLOSING}[.]?\s*+[(\[]?{both}{OPENING}{NAMED}{OPENING}{letter}", rest):
        return True
    clause = r"(?!\s+(?:is|was|has|does|would|can|fails)(?!\s+(?:also|right|correct|true)))"
    parted = rf"(?:{CLOSING}[.]?\s*+[,;]|\s)[\s(]*{OPENING}{NAMED}{OPENING}{letter}"
    in_brackets = rf"{CLOSING}[(\[]{letter}[)\]]"
    return re.match(rf"(?:{parted}|{in_brackets}){clause}", rest) is not None


def _is_taken_back(after: str, choice: str, letter: str) -> bool:
    """Whether another letter follows words such as "Wait" or "No" at the beginning of a sentence."""
    for match in _RETRACTION.finditer(after):
        if any(other != choice for other in re.findall(rf"(?<![A-Za-z0-9]){letter}", match["rest"])):
            return True
    return False


def _by_place(text: str, letter: str) -> str | None:
    """The letter of a response without a claim: in its last line, in its one line before its text, or after ``=``."""
    lines = [line for line in _bare(text).splitlines() if line.strip()]
    alone = [
        match
        for line in lines
        if (match := re.fullmatch(rf"{OPENING}{NAMED}{OPENING}{letter}{CLOSING}[.!]?{CLOSING}", line))
    ]
    if lines and alone:
        return alone[0].group(1) if len(alone) == 1 and alone[0].string is lines[-1] else None
    if len(lines) == 1:
        found = re.match(rf"[*_\s]*(?:option\s*)?[(\[]?{letter}(?:[)\]]|[.:](?=\s))\s*+(?=\S)", lines[0], re.IGNORECASE)
        if found is not None and found.group(1).isupper():
            return _choice_in(lines[0], letter)
    _, equals, rest = text.rpartition("=")
    return _choice_in(rest[:REACH].split("\n", 1)[0], letter) if equals else None
