"""`dvpo reward-model train` from the command line, with real files and a real model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from cluster.reward_model.report import best_threshold, clustered_share, judge
from rollout.audit.intervals import wilson
from tests.cluster.cli.test_bad_input import assert_refused

Dvpo = Callable[..., Result]
CONFIG = """\
model: {model}
output: out
train: pairs.jsonl
max_tokens: 48
optimisation:
  lr: 3.0e-3
  batch_size: 16
"""


def polite(number: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefgh", k=5)) + str(index) for index in range(number)]
    return [{"prompt": word, "chosen": f"{word} please", "rejected": f"{word} now"} for word in words]


def write(path: Path, rows: list[Any]) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rm.yaml").write_text(CONFIG.format(model=tiny_model))
    write(tmp_path / "pairs.jsonl", polite(160))
    return tmp_path


def test_a_model_is_trained_measured_and_saved(folder: Path, dvpo: Dvpo) -> None:
    result = dvpo("reward-model", "train", "rm.yaml")
    assert result.exit_code == 0, result.output
    report = json.loads((folder / "out" / "reward_model_report.json").read_text())
    assert (report["num_train_pairs"], report["num_held_out_pairs"], report["num_steps"]) == (144, 16, 9)
    assert report["accuracy"]["value"] == 1.0 and report["accuracy"]["low"] == pytest.approx(wilson(16, 16).low)
    assert report["false_positive_rate"]["value"] == report["false_negative_rate"]["value"] == 0.0
    assert 0.0 <= report["calibration"]["error"] <= 0.5
    assert "accuracy on 16 held-out pairs: 1.000 [0.806, 1.000]" in result.output
    model = AutoModelForSequenceClassification.from_pretrained("out")
    tokenizer = AutoTokenizer.from_pretrained("out")
    answers = [f"yes {word}" for word in ("please", "now")]
    chats = [[{"role": "user", "content": "go"}, {"role": "assistant", "content": answer}] for answer in answers]
    scores = []
    for chat in chats:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            scores.append(model(input_ids=ids).logits.item())
    assert scores[0] > report["threshold"] > scores[1]


@pytest.mark.slow
def test_a_real_model_is_right_as_often_as_people_agree_with_what_can_be_learned(folder: Path, dvpo: Dvpo) -> None:
    """The 72 % reward model: 28 % of the pairs, trained on and held out alike, are the other way round."""
    rng, rows = random.Random(4), polite(1200)
    swapped = [rng.random() < 0.282 for _ in rows]
    pairs = [
        (row["rejected"], row["chosen"]) if s else (row["chosen"], row["rejected"])
        for row, s in zip(rows, swapped, strict=True)
    ]
    write(
        folder / "pairs.jsonl", [{**row, "chosen": a, "rejected": b} for row, (a, b) in zip(rows, pairs, strict=True)]
    )
    settings = ("--set", "eval_frac=0.5", "--set", "optimisation.num_epochs=4", "--set", "optimisation.lr=1e-3")
    result = dvpo("reward-model", "train", "rm.yaml", *settings)
    assert result.exit_code == 0, result.output
    report = json.loads((folder / "out" / "reward_model_report.json").read_text())
    assert report["num_held_out_pairs"] == 600
    accuracy = report["accuracy"]
    assert accuracy["low"] <= 0.718 <= accuracy["high"], accuracy
    assert accuracy["high"] - accuracy["low"] < 0.08


def test_whole_prompts_are_held_out_and_fewer_pairs_change_only_what_is_trained_on(
    folder: Path, tiny_model: Path
) -> None:
    from cluster.reward_model.config import RewardModelConfig
    from cluster.reward_model.data import load_pairs
    from learner.reward_model.model import RewardModel

    rows = [{**row, "prompt_id": index % 20} for index, row in enumerate(polite(160))]
    write(folder / "pairs.jsonl", rows)
    model = RewardModel.start_from(str(tiny_model), 48, 0)
    base = {"model": str(tiny_model), "output": "out", "train": "pairs.jsonl", "eval_frac": 0.25}
    full = load_pairs(RewardModelConfig.model_validate(base), model)
    few = load_pairs(RewardModelConfig.model_validate({**base, "num_train_pairs": 30}), model)
    assert (len(full.train), len(full.held_out), len(few.train)) == (120, 40, 30)
    assert not {pair.group for pair in full.train} & {pair.group for pair in full.held_out}
    assert few.held_out == full.held_out
    assert all(pair in full.train for pair in few.train)


GOOD = {"prompt": "go", "chosen": "a", "rejected": "b"}
CHAT = [{"role": "user", "content": "go"}]
BAD_ROWS: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "pairs.jsonl:2: "),
    "no object": ("[1]", "pairs.jsonl:2: a row must be an object with 'prompt', 'chosen', 'rejected'"),
    "missing": ({"prompt": "go", "chosen": "a", "rejcted": "b"}, "no column 'rejected'; did you mean 'rejcted'?"),
    "null": ({**GOOD, "chosen": None}, "column 'chosen' is null"),
    "number": ({**GOOD, "chosen": 3}, "'chosen' must be text or a list of messages, not 3"),
    "prompt of a wrong type": ({**GOOD, "prompt": {}}, "pairs.jsonl:2: column 'prompt' must be text"),
    "prompt without user": ({**GOOD, "prompt": [{"role": "system", "content": "x"}]}, "no message of the user"),
    "equal": ({**GOOD, "rejected": "a"}, "'chosen' and 'rejected' are the same"),
    "only the prompt": ({"prompt": CHAT, "chosen": CHAT, "rejected": "b"}, "'chosen' has no message of the assistant"),
    "bad role": ({**GOOD, "chosen": [{"role": "asistant", "content": "a"}]}, "did you mean 'assistant'?"),
    "no content": ({**GOOD, "chosen": [{"role": "assistant"}]}, "'chosen', message 1 must be an object with the"),
    "half a character": ('{"prompt": "go", "chosen": "a\\ud83d", "rejected": "b"}', "half a character at position 2"),
    "bad id": ({**GOOD, "prompt_id": [1]}, "column 'prompt_id' must be text or a whole number"),
    "over-long": ({**GOOD, "rejected": "b" * 60}, "pairs.jsonl:2: with 'rejected', the conversation has 66 tokens"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_are_told_with_their_place(row: Any, message: str, folder: Path, dvpo: Dvpo) -> None:
    write(folder / "pairs.jsonl", [GOOD, row])
    assert_refused(dvpo("reward-model", "train", "rm.yaml"), "error: pairs.jsonl:2: ", message)
    assert not (folder / "out").exists()


def test_bad_rows_may_be_left_out_and_are_written_down(folder: Path, dvpo: Dvpo) -> None:
    bad = [BAD_ROWS["equal"][0], BAD_ROWS["over-long"][0]]
    write(folder / "pairs.jsonl", [*polite(20), *bad])
    result = dvpo("reward-model", "train", "rm.yaml", "--set", "on_bad_row=reject")
    assert result.exit_code == 0, result.output
    assert "2 rows were rejected, see out/rejects.jsonl" in result.output
    rejects = [json.loads(line) for line in (folder / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [reject["number"] for reject in rejects] == [21, 22]
    assert [reject["row"] for reject in rejects] == bad
    report = json.loads((folder / "out" / "reward_model_report.json").read_text())
    assert report["num_rejected_rows"] == {"train": 2}
    assert report["num_train_pairs"] + report["num_held_out_pairs"] == 20


MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "unknown key": (["optimization={}"], ["optimization: unknown key", "did you mean 'optimisation'?"]),
    "unknown loss": (["loss.type=ropoo"], ["loss.type: unknown name 'ropoo'", "did you mean 'ropo'?"]),
    "option of another loss": (["loss.type=ropo", "loss.beta_prime=1"], ["loss.beta_prime: unknown key", "noise_rate"]),
    "bad option": (["loss.type=ropo", "loss.a=1"], ["loss.a:", "greater than 1"]),
    "bad rate": (["optimisation.lr=0"], ["optimisation.lr", "greater than 0", "(got 0)"]),
    "two ways to hold out": (["eval=pairs.jsonl", "eval_frac=0.5"], ["'eval_frac' would do nothing"]),
    "the same file twice": (["eval=pairs.jsonl"], ["eval: 160 prompts are in 'train' as well"]),
    "no file": (["train=pears.jsonl"], ["--set train=pears.jsonl: train.0: ", "mean 'pairs.jsonl'?"]),
    "too many wanted": (["num_train_pairs=1000"], ["num_train_pairs: there are 144 pairs to train on, not 1000"]),
    "no model": (["model=./nowhere"], ["model: no such folder: './nowhere'"]),
    "too long": (["max_tokens=100000"], ["--set max_tokens=100000: max_tokens: 100000 is more than the"]),
    "file as output": (["output=rm.yaml"], ["output: ", "rm.yaml' is a file"]),
    "output in use": (["output=."], ["output: '.' is not empty; name another folder"]),
    "explodes": (["optimisation.lr=1e30", "optimisation.warmup_frac=0"], ["optimisation.lr: training fails at step"]),
}


@pytest.mark.parametrize(("overrides", "phrases"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_has_a_message(overrides: list[str], phrases: list[str], folder: Path, dvpo: Dvpo) -> None:
    settings = [part for override in overrides for part in ("--set", override)]
    assert_refused(dvpo("reward-model", "train", "rm.yaml", *settings), *phrases)


def test_only_an_earlier_reward_model_is_overwritten(folder: Path, dvpo: Dvpo) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").write_text("years of work")
    assert_refused(dvpo("reward-model", "train", "rm.yaml", "--overwrite"), "has no reward_model_report.json")
    (folder / "out" / "thesis.txt").rename(folder / "thesis.txt")
    assert dvpo("reward-model", "train", "rm.yaml", "--set", "optimisation.num_steps=1").exit_code == 0
    assert_refused(dvpo("reward-model", "train", "rm.yaml"), "--overwrite")
    again = dvpo("reward-model", "train", "rm.yaml", "--overwrite", "--set", "model=out", "--set", "output=out")
    assert_refused(again, "output: 'out' is the model that it starts from")
    assert dvpo("reward-model", "train", "rm.yaml", "--overwrite").exit_code == 0


def test_pairs_of_one_prompt_are_no_independent_evidence() -> None:
    rng = random.Random(0)
    alone = [float(rng.random() < 0.7) for _ in range(100)]
    names = [str(index) for index in range(100)]
    single, plain = clustered_share(alone, names), wilson(sum(alone), 100)
    assert single.value == plain.value and single.low == pytest.approx(plain.low, abs=0.005)
    fivefold = clustered_share([hit for hit in alone for _ in range(5)], [name for name in names for _ in range(5)])
    assert (fivefold.value, fivefold.count) == (plain.value, 500)
    assert fivefold.low == pytest.approx(plain.low, abs=0.005) and fivefold.high == pytest.approx(plain.high, abs=0.005)
    perfect = clustered_share([1.0] * 500, [name for name in names for _ in range(5)])
    assert perfect.low == pytest.approx(wilson(100, 100).low)


def test_intervals_cover_what_they_promise() -> None:
    """Prompts of 1 to 6 pairs that are right together more often than not."""
    rng = random.Random(1)
    covered = 0
    for _ in range(300):
        hits, groups = [], []
        for group in range(80):
            ease = rng.betavariate(2.0, 1.0)  # mean 2/3
            for _ in range(rng.randint(1, 6)):
                hits.append(float(rng.random() < ease))
                groups.append(str(group))
        covered += clustered_share(hits, groups).holds(2.0 / 3.0)
    assert covered >= 0.92 * 300


def test_the_threshold_is_the_best_of_all() -> None:
    rng = random.Random(2)
    positive, negative = ([rng.gauss(mean, 1.0) for _ in range(60)] for mean in (0.5, -0.5))
    threshold = best_threshold(positive, negative)

    def j(cut: float) -> float:
        return sum(score > cut for score in positive) / 60 - sum(score > cut for score in negative) / 60

    assert j(threshold) == pytest.approx(max(j(cut) for cut in [*positive, *negative, -9.0]))
    found = judge(list(zip(positive, negative, strict=True)), [str(index) for index in range(60)])
    assert found.threshold == threshold
    assert 1.0 - found.false_positive_rate.value - found.false_negative_rate.value == pytest.approx(j(threshold))


def test_a_confident_model_that_guesses_is_badly_calibrated() -> None:
    rng = random.Random(3)
    margins = [rng.choice((-4.0, 4.0)) + rng.gauss(0, 0.1) for _ in range(400)]
    found = judge([(margin, 0.0) for margin in margins], [str(index) for index in range(400)])
    assert found.calibration.error == pytest.approx(0.98 - found.accuracy.value, abs=0.03)
