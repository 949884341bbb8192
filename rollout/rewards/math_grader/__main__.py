"""The process in which ``math_verify`` compares expressions: it may run out of time or memory without harm.

Reads a JSON object a line from standard input, ``{"answer", "reference", "timeout_s"}``, and answers each with
``{"verdict"}`` (:class:`Verdict`), after a first line ``{"verdict": "ready"}``. A comparison that takes longer than
``timeout_s`` ends the process by SIGALRM, which no computation can hold up. It ends with its standard input, too.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys

from rollout.rewards.math_grader.compare import is_equal
from rollout.rewards.math_grader.symbolic import TooLarge
from rollout.rewards.math_grader.verdict import Verdict

MAX_MEMORY_BYTES = 4 * 1024**3
WARM_UP = ((r"\frac{x+1}{\sqrt{2}}", r"\frac{1+x}{2}"), ("(x+2)^2-3", "x^2+4x+1"), (r"\sin 2x", r"2\sin x\cos x"))
"""Comparisons that load SymPy and build the parser's tables, so that the first answers are not charged with that."""


def grade(answer: str, reference: str) -> Verdict:
    """Whether ``answer`` means the same as ``reference``; both are expressions as they are written."""
    try:
        return Verdict.EQUAL if is_equal(reference, answer) else Verdict.DIFFERENT
    except (MemoryError, OverflowError, RecursionError, TooLarge):
        return Verdict.TOO_LARGE
    except Exception:  # what SymPy cannot compare is not equal
        return Verdict.DIFFERENT


def main() -> None:
    """Answer until standard input ends."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for one, other in WARM_UP:
        grade(one, other)
    print(json.dumps({"verdict": Verdict.READY}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, job["timeout_s"])
        verdict = grade(job["answer"], job["reference"])
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        print(json.dumps({"verdict": verdict}), flush=True)


if __name__ == "__main__":
    main()
