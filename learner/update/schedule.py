"""The learning rate as a function of the optimiser step."""

from __future__ import annotations

import math


def learning_rate(step: int, num_steps: int, peak: float, warmup_frac: float, schedule: str) -> float:
    """Learning rate of optimiser step ``step`` (from 0) of ``num_steps``.

    It rises linearly to ``peak`` over the first ceil(warmup_frac * num_steps) steps; then it stays (``constant``) or
    falls, to reach 0 at step ``num_steps``, along a line (``linear``) or half a cosine (``cosine``).
    """
    warmup = math.ceil(warmup_frac * num_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    progress = min(1.0, (step - warmup) / max(1, num_steps - warmup))
    if schedule == "linear":
        return peak * (1.0 - progress)
    if schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"unknown learning-rate schedule {schedule!r}; valid: constant, linear, cosine")
