"""Random streams that do not depend on which process draws from them.

A stream is named by (run seed, prompt id, sample index, purpose): the same name gives the same numbers in whichever
worker, in whichever order. Python's own ``hash`` is salted per process, so the name goes through BLAKE2.
"""

from __future__ import annotations

import hashlib
import random


def stream_seed(run_seed: int, prompt_id: str, sample_index: int, purpose: str) -> int:
    """A 63-bit seed for one named stream (fits a signed 64-bit integer, as vLLM and torch want)."""
    # \x1f separates the parts, so that no two different names are spelled alike.
    name = f"{run_seed}\x1f{prompt_id}\x1f{sample_index}\x1f{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


def stream(run_seed: int, prompt_id: str, sample_index: int, purpose: str) -> random.Random:
    """A fresh ``random.Random`` positioned at the start of the named stream."""
    return random.Random(stream_seed(run_seed, prompt_id, sample_index, purpose))
