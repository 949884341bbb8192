"""The process in which ``math_verify`` compares expressions: it may run out of time or memory without harm.

Reads a JSON object a line from standard input, ``{"response", "reference", "timeout_s"}``, and answers each with
``{"verdict"}`` (:class:`Verdict`), after a first line ``{"verdict": "ready"}``. A comparison that takes longer than
``timeout_s`` ends the process by SIGALRM, which no computation can hold up. It ends with its standard input, too.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
from enum import StrEnum
from itertools import product

MAX_MEMORY_BYTES = 4 * 1024**3


class Verdict(StrEnum):
    """What became of a comparison."""

    READY = "ready"
    EQUAL = "equal"
    DIFFERENT = "different"
    NO_ANSWER = "no_answer"
    """There is no expression in the response."""
    BAD_REFERENCE = "bad_reference"
    """There is no expression in the reference."""
    TOO_LARGE = "too_large"
    """The response's expression needs too much memory, digits or depth."""


def grade(response: str, reference: str) -> Verdict:
    """Whether the last expression of ``response`` equals ``reference``, by math-verify.

    A reference without delimiters (``$``, ``\\(``, ``\\boxed``) is taken for LaTeX as a whole, unless it is a number.
    """
    from math_verify import parse, verify

    gold = parse(_delimited(reference), parsing_timeout=0) or parse(reference, parsing_timeout=0)
    if not gold:
        return Verdict.BAD_REFERENCE
    answer = parse(response, parsing_timeout=0)
    if not answer:
        return Verdict.NO_ANSWER
    verdict = Verdict.DIFFERENT
    for one, other in product(gold, answer):
        try:
            if verify(one, other, timeout_seconds=0, raise_on_error=True):
                return Verdict.EQUAL
        except (MemoryError, OverflowError, RecursionError):
            verdict = Verdict.TOO_LARGE
        except Exception:  # what SymPy cannot compare is not equal
            continue
    return verdict


def _delimited(text: str) -> str:
    if any(mark in text for mark in ("$", "\\(", "\\[", "\\boxed")):
        return text
    try:
        float(text)
    except ValueError:
        return f"${text}$"
    return text


def main() -> None:
    """Answer until standard input ends."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    grade("$1$", "1")  # loads everything
    print(json.dumps({"verdict": Verdict.READY}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, job["timeout_s"])
        verdict = grade(job["response"], job["reference"])
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        print(json.dumps({"verdict": verdict}), flush=True)


if __name__ == "__main__":
    main()
