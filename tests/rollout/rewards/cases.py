"""A response to be graded, and its prompt."""

from __future__ import annotations

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
