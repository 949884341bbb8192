"""Texts of others: no control character and no secret goes to a terminal, an event, the status or an error."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from actors.recording.event_log import EventLog, read_events
from actors.recording.run_status import RunStatus
from actors.recording.safe_text import safe, without_secrets
from cluster.cli.output import LONGEST_LINE, UserMistake
from cluster.display.progress import PlainProgress, RichProgress

EVIL = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202egpj.exe \u2028 \r overwritten"
HARMFUL = ("\x1b", "\x07", "\x9b", "\u202e", "\u2028", "\r")
ENVIRONMENT = {
    "WANDB_API_KEY": "0123456789abcdef-wandb",
    "RAY_AUTH_TOKEN": "feedfacefeedface",
    "HF_TOKEN": "hf_abcdefgh",
    "MAX_KEYS": "12345678901",
    "SHORT_TOKEN": "abc",
    "PATH": "/usr/bin:/bin",
}


def assert_harmless(text: str) -> None:
    assert not [character for character in HARMFUL if character in text]
    assert "owned" in text and "overwritten" in text  # nothing is left out, it is spelled


def test_an_event_is_harmless_in_the_file_and_when_it_is_read(tmp_path: Path) -> None:
    EventLog(tmp_path / "events.jsonl").write("worker", 3, EVIL, worker=EVIL, nested={"why": [EVIL]})
    assert_harmless((tmp_path / "events.jsonl").read_text(encoding="utf-8"))
    [event] = read_events(tmp_path / "events.jsonl")
    for text in (event["text"], event["worker"], event["nested"]["why"][0]):
        assert_harmless(text)


def test_status_and_displays_are_harmless(tmp_path: Path) -> None:
    status = RunStatus(tmp_path / "status.json")
    status.note("rollout-0", EVIL)
    status.step = 1
    assert_harmless(json.loads((tmp_path / "status.json").read_text())["workers"]["rollout-0"]["last_event"])
    plain, rich = io.StringIO(), io.StringIO()
    PlainProgress(plain).event(EVIL)
    RichProgress(rich).event(EVIL)
    for stream in (plain, rich):
        assert_harmless(stream.getvalue())


def test_an_error_is_harmless_and_of_bounded_length(capsys: pytest.CaptureFixture[str]) -> None:
    UserMistake(f"{EVIL} http://me:hunter2@host/x\n{'y' * 1_000_000}").show()
    shown = capsys.readouterr().err
    assert_harmless(shown)
    assert "hunter2" not in shown and "http://***@host/x" in shown
    assert len(shown) < 2 * LONGEST_LINE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pass@host:1/x?a=1", "http://***@host:1/x?a=1"),
        ("cannot reach https://tok3n@host", "cannot reach https://***@host"),
        ("GET /s?key=AbC&n=2", "GET /s?key=***&n=2"),
        ("https://h/x?X-Amz-Signature=0a1b#f", "https://h/x?X-Amz-Signature=***#f"),
        ("--set reward.functions.0.api_key=sk-123, then", "--set reward.functions.0.api_key=***, then"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer ***"),
        ("it said 0123456789abcdef-wandb!", "it said ***!"),
        ("feedfacefeedface and hf_abcdefgh", "*** and ***"),
        # what is no secret stays
        ("--set rollout.sampling.max_response_tokens=12", "--set rollout.sampling.max_response_tokens=12"),
        ("mail me@example.org at /usr/bin:/bin", "mail me@example.org at /usr/bin:/bin"),
        ("12345678901 abc pad_token=<pad>", "12345678901 abc pad_token=<pad>"),
        ("basic training of the bearer", "basic training of the bearer"),
    ],
)
def test_what_is_hidden(text: str, shown: str) -> None:
    assert without_secrets(text, ENVIRONMENT) == shown


def test_safe_twice_is_safe_once() -> None:
    assert safe(safe(EVIL)) == safe(EVIL)
