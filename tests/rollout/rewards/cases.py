"""A response to be graded, and its prompt; an expression that was read, in few characters."""

from __future__ import annotations

from rollout.rewards.math_grader.values import (
    Alternatives,
    Based,
    Equation,
    Expression,
    Group,
    Inequality,
    Number,
    Text,
    Value,
)
from rollout.trajectory import FinishReason, Outcome, Prompt, Trajectory


def case(
    text: str, reference: str | None, outcome: Outcome | None = None, cut: bool = False
) -> tuple[Prompt, Trajectory]:
    """What was asked and answered; ``cut``: at the length limit."""
    trajectory = Trajectory(
        prompt_id="p0",
        sample_index=0,
        token_ids=(1, 2),
        action_mask=(False, True),
        rollout_logprobs=(0.0, -1.0),
        response_text=text,
        finish_reason=FinishReason.LENGTH if cut else FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
        outcome=outcome,
    )
    return Prompt(prompt_id="p0", messages=(), token_ids=(1,), reference=reference, task="t"), trajectory


def shown(value: Value | None) -> str:
    """A value in few characters."""
    match value:
        case Number(number, ulp, digits, percent, unit):
            precision = f" ±{ulp} of {digits}" if ulp is not None or digits else ""
            return f"{number}{precision}{' percent' if percent else ''}{' ' + unit if unit else ''}"
        case Expression(latex, unit, percent):
            return f"<{latex}>{' percent' if percent else ''}{' ' + unit if unit else ''}"
        case Text(text):
            return f"'{text}'"
        case Group(kind, items):
            return f"{kind}[{'; '.join(map(shown, items))}]"
        case Equation(name, held, left, right):
            return f"{name}={shown(held)}" if name else f"<{left}>=<{right}>"
        case Inequality(sides, signs):
            return " ".join([sides[0], *(f"{sign} {side}" for sign, side in zip(signs, sides[1:], strict=True))])
        case Based(digits, base):
            return f"{digits} in {base}"
        case Alternatives(forms):
            return " or ".join(map(shown, forms))
    return "nothing"
