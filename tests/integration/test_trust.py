"""Labels by vote, estimates from the re-checked share, and a correction that uses or refuses them; real engines."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from cluster.audit.recorded import audit_run
from rollout.component import UserError
from tests.integration.shared_run import SharedRun
from tests.integration.whole_runs import WriteConfig, read_metrics

pytestmark = pytest.mark.slow

FIRST_CHARACTER = "^(.)"
"""What counts as an answer: the model is random, and rarely writes an equals sign."""


RANDOM_ANSWERS = {"type": "response_format", "pattern": "[0-8].*", "require_stop": False}
"""Right about every second time where nothing has been learned."""
ESTIMATED = {"type": "noise_corrected", "false_positive_rate": 0.2, "false_negative_rate": 0.1, "estimated": True}
STEPS = {"num_steps": 4, "prompts_per_step": 16, "samples_per_prompt": 4}


def test_votes_teach_and_their_errors_are_estimated(
    shared_run: SharedRun, write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config(
        reward={
            "functions": [RANDOM_ANSWERS],
            "pseudo_labels": {"answer_pattern": FIRST_CHARACTER, "min_share": 0.5},
            "gold_share": 0.5,
        },
        algorithm={"preset": "dr-grpo"},
        training=STEPS,
    )
    shared_run.train(config, tmp_path)
    steps = read_metrics(tmp_path)
    assert len(steps) == 4
    for step in steps:
        assert step["rollout/num_trajectories"] == 64
        assert 0.25 < step["reward/observed_mean"] <= 1.0, "half of a prompt's samples agree"
    assert any(step["votes/unlabelled_frac"] > 0.0 for step in steps)
    last = steps[-1]
    assert 80 < last["trust/num_rechecked"] < 180, "half of 256"
    assert last["trust/false_positive_rate_low"] < last["trust/false_positive_rate"]
    with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
        reasons = {reason for (reason,) in ledger.execute("SELECT reason FROM samples WHERE state = 'dropped'")}
    assert reasons == {"no label by vote: the winner has less than reward.pseudo_labels.min_share"}


def test_a_run_is_audited_by_the_scores_it_has_recorded(
    shared_run: SharedRun, write_config: WriteConfig, tmp_path: Path
) -> None:
    """A fifth of them is wrong, and half of the true ones may be looked at."""
    config = write_config(
        data={"task": {"type": "chain", "num_train": 24, "num_eval": 16}},
        reward={
            "functions": [RANDOM_ANSWERS],
            "noise": [{"type": "symmetric_flip", "p": 0.2}],
            "gold_share": 0.5,
        },
        algorithm={"preset": "dr-grpo"},
        training={**STEPS, "num_steps": 8, "prompts_per_step": 32, "samples_per_prompt": 8},
    )
    shared_run.train(config, tmp_path)
    report = audit_run(tmp_path)
    assert report.num_contradictions == 0
    assert (report.num_scores, report.num_prompts, report.rates.num_cells) == (2048, 24, 48)
    for rate in (report.rates.rho_plus, report.rates.rho_minus):
        assert rate is not None and rate.holds(0.2)
        assert rate.value == pytest.approx(0.2, abs=0.04)
    assert report.rates.pi_plus is not None and report.rates.pi_plus.value < 0.02


def misjudged(write_config: WriteConfig, rate: float) -> Path:
    """A run whose verdicts are wrong at this rate, of both kinds, and are corrected by what it estimates."""
    return write_config(
        reward={
            "functions": [RANDOM_ANSWERS],
            "noise": [{"type": "asymmetric_flip", "false_positive_rate": rate, "false_negative_rate": rate}],
            "gold_share": 0.9,
        },
        algorithm={"preset": "nc-dr-grpo", "reward_correction": [ESTIMATED]},
        trust={"min_labels": 4},
        training=STEPS,
    )


def test_a_correction_uses_the_estimates(shared_run: SharedRun, write_config: WriteConfig, tmp_path: Path) -> None:
    shared_run.train(misjudged(write_config, 0.05), tmp_path)
    js = [step["correction/noise_corrected_j"] for step in read_metrics(tmp_path)]
    assert js[0] == pytest.approx(0.7), "the configured rates, before anything is known"
    assert js[-1] != pytest.approx(0.7) and js[-1] > 0.5


def test_a_reward_that_teaches_the_opposite_ends_the_run(
    shared_run: SharedRun, write_config: WriteConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        shared_run.train(misjudged(write_config, 0.95), tmp_path)
    assert "as estimated from re-checked trajectories, so J = -0." in str(caught.value)
    assert "this reward says nothing of the answer, or the opposite" in str(caught.value)
    assert len(read_metrics(tmp_path)) == 1, "the first step had no estimates yet"
