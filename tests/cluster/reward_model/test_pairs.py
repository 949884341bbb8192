"""From scored responses to pairs, and what the command refuses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from cluster.reward_model.pairs import ScoredResponse, pair_rows
from rollout.data.preference_pairs import read_pair
from rollout.tasks.rows import Row
from rollout.trajectory import Message, Prompt
from tests.cluster.cli.test_bad_input import assert_refused

PROMPT = Prompt(
    prompt_id="p1", messages=({"role": "user", "content": "3+4?"},), token_ids=(1,), reference="7", task="t"
)


def said(text: str, score: float | None) -> ScoredResponse:
    return ScoredResponse(({"role": "assistant", "content": text},), score)


def test_the_higher_score_is_chosen_and_equal_ones_make_no_pair() -> None:
    responses = [said("7", 1.0), said("8", 0.0), said("7", 1.0), said("9", 0.0), said("?", None), said("half", 0.5)]
    rows = pair_rows(PROMPT, responses, 100, seed=0)
    found = Counter((row["chosen"], row["rejected"]) for row in rows)
    assert found == Counter([("7", "8"), ("7", "9"), ("7", "half"), ("half", "8"), ("half", "9")])
    few = pair_rows(PROMPT, responses, 2, seed=0)
    assert len(few) == 2 and few == pair_rows(PROMPT, responses, 2, seed=0)
    assert pair_rows(PROMPT, [said("8", 0.0), said("9", 0.0), said("7", None)], 5, seed=0) == []


def test_pairs_are_read_back_as_they_were_said() -> None:
    turns: tuple[Message, ...] = (
        {"role": "assistant", "content": "for when?"},
        {"role": "user", "content": "noon"},
        {"role": "assistant", "content": "booked"},
    )
    (row,) = pair_rows(PROMPT, [ScoredResponse(turns, 1.0), said("no", 0.0)], 3, seed=0)
    pair = read_pair(Row(place="f:1", number=1, value=json.loads(json.dumps(row))))
    assert (pair.prompt, pair.chosen, pair.group) == (PROMPT.messages, turns, "p1")
    assert pair.rejected == ({"role": "assistant", "content": "no"},)
    whole = read_pair(Row(place="f:1", number=1, value={**row, "chosen": [*row["prompt"], *row["chosen"]]}))
    assert whole == pair


def test_mistakes_are_told_before_anything_is_started(run_file: Path, dvpo: Callable[..., Result]) -> None:
    assert_refused(dvpo("reward-model", "pairs", run_file), "Missing option '--output'")
    lost = ("reward-model", "pairs", run_file, "--output", "p.jsonl", "--set", "model.path=./nowhere")
    assert_refused(dvpo(*lost), "model.path=./nowhere: model.path: no such folder: './nowhere'")
    blocked = ("reward-model", "pairs", run_file, "--output", run_file / "p.jsonl")
    assert_refused(dvpo(*blocked), "--output: cannot write")
