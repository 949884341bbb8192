"""Python's garbage collector in processes that stay up."""

from __future__ import annotations

import gc

ALLOCATIONS = 50_000
"""New objects between two looks at them, instead of Python's 700: most are gone by then without being looked for."""


def keep_what_is_there() -> None:
    """Let the collector look seldom, and never again at what exists now: the objects of libraries are many, and stay.

    A look at all of a process that has loaded vLLM takes a few tenths of a second, in which nothing else runs, and Ray
    asks for one again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 20, 20)
