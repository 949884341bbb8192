"""A reward model learns an order that can be learnt, whichever loss, and scores do not depend on the batch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForSequenceClassification

from learner.reward_model.losses import LOSSES, PairLoss
from learner.reward_model.model import NotARewardModel, RewardModel, TooLong, require_reward_model
from learner.reward_model.options import OptimisationConfig
from learner.reward_model.preference import smallest_losses
from learner.reward_model.training import TokenizedPair, num_steps, score_pairs, train_reward_model
from rollout.component import ComponentSpec, build
from rollout.trajectory import Message


def talk(question: str, answer: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": question}, {"role": "assistant", "content": answer})


def loss_of(**spec: object) -> PairLoss:
    built: PairLoss = build(ComponentSpec.model_validate(spec), LOSSES, PairLoss, "loss")
    return built


def polite_pairs(model: RewardModel, count: int, seed: int) -> list[TokenizedPair]:
    """The chosen answer says 'please' somewhere, the rejected one some other word."""
    rng = random.Random(seed)
    pairs = []
    for _ in range(count):
        word = "".join(rng.choices("abcdefgh", k=rng.randint(1, 6)))
        rows = (model.encode(talk(word, f"{word} {ending}")) for ending in ("please", rng.choice(("now", "at once"))))
        pairs.append(TokenizedPair(*rows))
    return pairs


LOSS_SPECS: list[dict[str, Any]] = [
    {"type": "bradley_terry"},
    {"type": "ropo", "noise_rate": 0.1},
    {"type": "dr_dpo", "beta_prime": 0.5},
]


@pytest.mark.parametrize("spec", LOSS_SPECS, ids=lambda spec: str(spec["type"]))
def test_each_loss_falls_and_unseen_pairs_come_out_right(spec: dict[str, object], tiny_model: Path) -> None:
    model = RewardModel.start_from(str(tiny_model), 64, seed=0)
    options = OptimisationConfig(num_epochs=2, batch_size=16, lr=3e-3)
    losses = train_reward_model(model, polite_pairs(model, 128, 1), loss_of(**spec), options, seed=0)
    assert len(losses) == num_steps(128, options, spec.get("noise_rate", 0.0))  # type: ignore[arg-type]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    scores = score_pairs(model, polite_pairs(model, 100, 2))
    assert sum(chosen > rejected for chosen, rejected in scores) >= 97


@pytest.mark.parametrize("spec", LOSS_SPECS, ids=lambda spec: str(spec["type"]))
def test_micro_batches_change_nothing(spec: dict[str, object], tiny_model: Path) -> None:
    """Also where the loss is no mean over pairs."""
    trained = []
    for size in (None, 3):
        model = RewardModel.start_from(str(tiny_model), 64, seed=0)
        options = OptimisationConfig(num_steps=2, batch_size=8, micro_batch_size=size, lr=1e-3)
        losses = train_reward_model(model, polite_pairs(model, 16, 1), loss_of(**spec), options, seed=0)
        trained.append((losses, model.model.state_dict()))
    assert_close(trained[0][0], trained[1][0], rtol=1e-4, atol=1e-5)
    for name, weights in trained[0][1].items():  # Adam's first steps have the size of the rate, whatever the gradient
        assert (weights - trained[1][1][name]).abs().mean() < 1e-5, name


def test_the_filter_leaves_out_what_the_model_holds_unlikely(tiny_model: Path) -> None:
    """After a pass over pairs of which a quarter is turned round, the turned ones have the greatest losses."""
    model = RewardModel.start_from(str(tiny_model), 64, seed=0)
    honest = polite_pairs(model, 96, 1)
    turned = [TokenizedPair(pair.rejected, pair.chosen) for pair in polite_pairs(model, 32, 2)]
    options = OptimisationConfig(num_epochs=3, batch_size=16, lr=3e-3)
    train_reward_model(model, [*honest, *turned], loss_of(type="ropo", noise_rate=0.25), options, seed=0)
    margins = torch.tensor([chosen - rejected for chosen, rejected in score_pairs(model, [*honest, *turned])])
    kept = smallest_losses(-margins, 0.25)
    assert kept[:96].float().mean() > 0.95 and kept[96:].float().mean() < 0.15


def test_the_same_seed_gives_the_same_model(tiny_model: Path) -> None:
    runs = []
    for seed in (3, 3, 4):
        model = RewardModel.start_from(str(tiny_model), 64, seed)
        options = OptimisationConfig(num_steps=3, batch_size=4, lr=1e-3)
        runs.append(train_reward_model(model, polite_pairs(model, 16, 1), loss_of(**LOSS_SPECS[0]), options, seed))
    assert runs[0] == runs[1] != runs[2]


def test_scores_are_those_of_the_models_own_forward_pass(tiny_model: Path, tmp_path: Path) -> None:
    model = RewardModel.start_from(str(tiny_model), 64, seed=0)
    rows = [model.encode(talk("q" * length, "a" * (9 - length))) for length in (1, 4, 8)] + [model.encode(talk("", ""))]
    model.save(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        alone = [plain(input_ids=torch.tensor([row])).logits[0, 0].item() for row in rows]
    loaded = RewardModel.load(str(tmp_path), max_tokens=64)
    assert_close(loaded.score(rows), alone, rtol=1e-5, atol=1e-5)
    assert loaded.tokenizer.apply_chat_template(talk("x", "y"), tokenize=False) == "<bos><user>x<assistant>y<eos>"


def test_what_is_too_long_or_no_reward_model_is_refused(tiny_model: Path) -> None:
    model = RewardModel.start_from(str(tiny_model), 8, seed=0)
    assert len(model.encode(talk("ab", "cd"))) == 8
    with pytest.raises(TooLong, match="has 9 tokens, more than 8"):
        model.encode(talk("ab", "cde"))
    with pytest.raises(NotARewardModel, match="holds a Qwen2ForCausalLM"):
        RewardModel.load(str(tiny_model), 8)
    config = AutoConfig.from_pretrained(tiny_model, num_labels=2)
    config.architectures = ["Qwen2ForSequenceClassification"]
    with pytest.raises(NotARewardModel, match="has 2 labels"):
        require_reward_model(config)


def test_a_learning_rate_that_explodes_is_told(tiny_model: Path) -> None:
    model = RewardModel.start_from(str(tiny_model), 64, seed=0)
    options = OptimisationConfig(num_epochs=4, batch_size=4, lr=1e30, warmup_frac=0.0)
    with pytest.raises(FloatingPointError, match=r"step \d+: loss"):
        train_reward_model(model, polite_pairs(model, 32, 1), loss_of(**LOSS_SPECS[0]), options, seed=0)
