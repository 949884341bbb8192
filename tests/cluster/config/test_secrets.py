"""A configuration with a credential is refused by its place, and the credential is not told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Dvpo = Callable[..., Result]
REMOTE = "reward.functions.0={type: remote, url: '%s'}"
SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            REMOTE % f"http://me:{SECRET}@host/score",
            "--set reward.functions.0: reward.functions.0.url: its URL holds a ",
        ),
        (REMOTE % f"http://{SECRET}@host/score", "reward.functions.0.url: its URL holds a user name or a password"),
        (REMOTE % f"http://host/score?api_key={SECRET}", "parameter 'api_key' of its URL holds a secret"),
        (REMOTE % f"http://$USER:{SECRET}@host/score", "its URL holds a user name or a password"),
        (
            f"logging.sinks=[{{type: mlflow, tracking_uri: 'http://me:{SECRET}@host:5000'}}]",
            "logging.sinks.0.tracking_uri: its URL holds a user name or a password",
        ),
        (
            f"reward.functions.0={{type: 'mine:Reward', api_key: {SECRET}}}",
            "functions.0.api_key: an option of this name",
        ),
        (
            f"reward.functions.0={{type: 'mine:Reward', judge: {{password: {SECRET}}}}}",
            "functions.0.judge.password: an",
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "train"])
def test_refused_without_telling_it(command: str, override: str, message: str, run_file: Path, dvpo: Dvpo) -> None:
    result = dvpo(command, run_file, "--set", override)
    assert result.exit_code == 2
    assert message in result.output
    assert SECRET not in result.output
    assert "docs/security.md" in result.output
    assert not (run_file.parent / "runs").exists()


def test_refused_with_its_line(run_file: Path, dvpo: Dvpo) -> None:
    text = run_file.read_text().replace("type: exact_match", f"type: remote, url: 'http://me:{SECRET}@host/score'")
    run_file.write_text(text)
    result = dvpo("check", run_file)
    assert "small.yaml:8: reward.functions.0.url: its URL holds" in result.output
    assert SECRET not in result.output


def test_variables_are_no_secrets(run_file: Path, dvpo: Dvpo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names are written down, their values are not; one that is not set is named."""
    url = "http://$SCORE_USER:${SCORE_PASSWORD}@host/score?key=$SCORE_KEY"
    monkeypatch.setenv("SCORE_USER", "me-me-me")
    monkeypatch.setenv("SCORE_PASSWORD", SECRET)
    result = dvpo("check", run_file, "--set", REMOTE % url)
    assert result.exit_code == 2
    assert "reward.functions.0: url: the environment variable SCORE_KEY is not set" in result.output
    assert SECRET not in result.output
    monkeypatch.setenv("SCORE_KEY", SECRET)
    assert dvpo("check", run_file, "--set", REMOTE % url).exit_code == 0
