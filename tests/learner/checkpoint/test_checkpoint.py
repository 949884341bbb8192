"""Checkpoints: complete or absent, verified, loadable by transformers, and exact on resume."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from learner.checkpoint.load import load_checkpoint
from learner.checkpoint.random_state import random_state, set_random_state
from learner.storage.files import CheckpointFiles
from learner.storage.folders import prune
from learner.storage.manifest import (
    MANIFEST,
    CheckpointError,
    FileFacts,
    begin,
    checkpoint_step,
    commit,
    find_newest_complete,
    verify,
)
from learner.update.learner import Learner
from tests.learner.plain_learner import plain_learner, random_samples, save_checkpoint

MakeLearner = Callable[..., Learner]
DVPO = {"critic": {"num_heads": 2, "num_quantiles": 32}}


def write(checkpoints: Path, step: int) -> Path:
    final = checkpoints / f"step-{step}"
    partial = begin(final, 0)
    commit(partial, final, {"step": step}, fill(partial, step))
    return final


def fill(partial: Path, step: int) -> dict[str, FileFacts]:
    files = CheckpointFiles(partial)
    files.torch_save("policy/model.bin", torch.arange(1000 + step))
    files.text("state.json", "{}")
    return files.facts


def test_a_checkpoint_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "step-5"
    partial = begin(final, 0)
    files = CheckpointFiles(partial)
    files.text("a", "x")
    assert not final.exists()
    assert find_newest_complete(tmp_path) == (None, [])
    commit(partial, final, {"step": 5}, files.facts)
    assert not partial.exists()
    manifest = verify(final)
    assert manifest["step"] == 5
    assert manifest["files"]["a"]["sha256"] == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-5"]


def test_the_same_step_again_replaces(tmp_path: Path) -> None:
    write(tmp_path, 3)
    partial = begin(tmp_path / "step-3", 0)
    files = CheckpointFiles(partial)
    files.text("new", "y")
    assert "state.json" in verify(tmp_path / "step-3")["files"]
    commit(partial, tmp_path / "step-3", {"step": 3}, files.facts)
    assert list(verify(tmp_path / "step-3")["files"]) == ["new"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-3"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / MANIFEST).unlink(), "incomplete, there is no manifest.json"),
        (lambda p: (p / MANIFEST).write_text("{"), "not a readable manifest"),
        (lambda p: (p / MANIFEST).write_text('{"format": 9, "files": {}}'), "format 9 is not the supported format 1"),
        (lambda p: (p / "state.json").unlink(), "incomplete, state.json is missing"),
        (lambda p: (p / "state.json").write_text("{}x"), "state.json has 3 bytes instead of 2"),
        (lambda p: (p / "state.json").write_text("[]"), "state.json is damaged, its sha256"),
    ],
)
def test_the_newest_complete_one_is_found_and_others_are_named(
    tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    for step in (9, 10, 100):
        write(tmp_path, step)
    (tmp_path / "step-200").mkdir()
    (tmp_path / "notes").mkdir()
    damage(tmp_path / "step-100")
    found, skipped = find_newest_complete(tmp_path)
    assert found == tmp_path / "step-10"  # by number, not by name
    assert [s.path.name for s in skipped] == ["step-200", "step-100"]
    assert re.search(message, skipped[1].reason)
    with pytest.raises(CheckpointError, match=message):
        verify(tmp_path / "step-100")


def test_steps_and_pruning(tmp_path: Path) -> None:
    assert [checkpoint_step(Path(name)) for name in ("a/step-12", "a/step-12x", "a/.step-12.partial")] == [
        12,
        None,
        None,
    ]
    assert find_newest_complete(tmp_path / "none") == (None, [])
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        verify(tmp_path / "none")
    for step in (1, 2, 3, 11):
        write(tmp_path, step)
    (tmp_path / "step-12").mkdir()  # incomplete: neither counted nor deleted
    assert [p.name for p in prune(tmp_path, 2)] == ["step-2", "step-1"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-11", "step-12", "step-3"]


def test_random_streams_go_on_where_they_were() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.gauss(0, 1)
    np.random.randn()
    state = random_state()
    torch.save(state, buffer := io.BytesIO())
    buffer.seek(0)
    expected = [draw() for _ in range(3)]
    set_random_state(torch.load(buffer, weights_only=True))
    assert [draw() for _ in range(3)] == expected


@pytest.mark.slow
def test_resume_is_bit_exact(tmp_path: Path, tiny_model: Path, make_learner: MakeLearner) -> None:
    options = DVPO | {"num_minibatches": 2, "num_epochs": 2, "kl_coef": 0.01}
    learner = make_learner("dvpo", options)
    for step in range(2):
        learner.update(random_samples(8, step), step)
    save_checkpoint(learner, tmp_path / "step-2", tiny_model, {"prompts": [1, 2]})
    resumed = make_learner("dvpo", options)
    assert load_checkpoint(resumed, tmp_path / "step-2") == {"prompts": [1, 2]}
    assert resumed.state_dict() == learner.state_dict() == {"policy_steps": 8, "critic_steps": 8}
    for step in range(2, 4):
        one, other = (x.update(random_samples(8, step), step).metrics for x in (learner, resumed))
        assert one == other
    for name in ("policy", "critic"):
        pairs = zip(getattr(learner, name).full_weights(), getattr(resumed, name).full_weights(), strict=True)
        assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)


def test_contents(tmp_path: Path, tiny_model: Path, make_learner: MakeLearner) -> None:
    learner = make_learner("dvpo", DVPO)
    learner.update(random_samples(8), 0)
    folder = tmp_path / "step-1"
    save_checkpoint(learner, folder, tiny_model)
    files = set(json.loads((folder / MANIFEST).read_text())["files"])
    assert {"policy/model.safetensors", "policy/config.json", "critic/model.safetensors", "critic/critic.json"} <= files
    assert {"state/learner.json", "state/rank-0.pt", "state/policy/state.pt", "state/critic/state.pt"} <= files
    # transformers loads the policy, and it is the trained one
    lm = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    ids = random_samples(1)[0].trajectory.token_ids
    with torch.no_grad():
        logp = lm(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = learner.logprobs([ids])[0][1:]
    assert [float(logp[t, token]) for t, token in enumerate(ids[1:])] == pytest.approx(expected, abs=1e-5)
    start = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    assert not torch.equal(start.lm_head.weight, lm.lm_head.weight)
    assert lm.lm_head.weight is lm.model.embed_tokens.weight
    # the tokenizer with its template came along
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (tiny_model, folder / "policy")]
    messages = [{"role": "user", "content": "1+2"}]
    texts = [t.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) for t in tokenizers]
    assert texts == ["<bos><user>1+2<assistant>"] * 2
    assert tokenizers[1]("a\nb")["input_ids"] == tokenizers[0]("a\nb")["input_ids"]
    # the critic's weights by name
    saved = load_file(folder / "critic" / "model.safetensors")
    assert learner.critic is not None
    assert all(torch.equal(saved[name], weight) for name, weight in learner.critic.full_weights())
    shape = json.loads((folder / "critic" / "critic.json").read_text())
    assert shape == {"num_heads": 2, "num_quantiles": 32, "monotonicity": "sort", "hidden_size": 64}


GENERATION = {
    "sampling values without do_sample": {"temperature": 0.8, "top_p": 0.7},
    "temperature 0": {"temperature": 0},
    "top_k": {"top_k": 20},
    "early_stopping": {"early_stopping": True},
    "negative token": {"pad_token_id": -1},
    "what nobody knows": {"do_sample": False, "my_own": [1, {"a": None}]},
}


@pytest.mark.parametrize("values", GENERATION.values(), ids=GENERATION)
def test_side_files_are_carried_byte_for_byte_and_stop_no_save(
    values: dict[str, Any], tmp_path: Path, tiny_model: Path
) -> None:
    """transformers warns of such values when it loads, and raises when it saves them."""
    start = tmp_path / "start"
    shutil.copytree(tiny_model, start)
    side_files = {
        "generation_config.json": json.dumps(values, indent=3),
        "chat_template.jinja": "{# mine #}" + (tiny_model / "chat_template.jinja").read_text() + "\n\n",
        "tokenizer_config.json": (tiny_model / "tokenizer_config.json").read_text() + "\n",
        "README.md": "Not UTF-8: \xe9",
    }
    for name, text in side_files.items():
        (start / name).write_bytes(text.encode("latin-1"))
    learner = plain_learner(start, "grpo")
    learner.update(random_samples(8), 0)
    save_checkpoint(learner, tmp_path / "step-1", start)
    policy = tmp_path / "step-1" / "policy"
    assert {name: (policy / name).read_bytes() for name in side_files} == {
        name: (start / name).read_bytes() for name in side_files
    }
    assert (policy / "tokenizer.json").read_bytes() == (start / "tokenizer.json").read_bytes()
    saved = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    assert torch.equal(saved.lm_head.weight, dict(learner.policy.full_weights())["lm.model.embed_tokens.weight"])
    assert AutoTokenizer.from_pretrained(policy)("1+2")["input_ids"]
    # and a run goes on from what was saved
    again = plain_learner(policy, "grpo")
    save_checkpoint(again, tmp_path / "step-2", policy)
    assert (tmp_path / "step-2" / "policy" / "generation_config.json").read_text() == side_files[
        "generation_config.json"
    ]


@pytest.mark.parametrize("values", [{"temperature": 0.7}, {"num_beams": 4, "top_k": 0}, {"pad_token_id": -1}])
def test_generation_values_in_the_model_configuration_stop_no_save(
    values: dict[str, Any], tmp_path: Path, tiny_model: Path
) -> None:
    """As older models have them, which bring no generation_config.json."""
    start = tmp_path / "start"
    shutil.copytree(tiny_model, start)
    (start / "generation_config.json").unlink()
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps(config | values))
    save_checkpoint(plain_learner(start, "grpo"), tmp_path / "step-1", start)
    policy = tmp_path / "step-1" / "policy"
    assert json.loads((policy / "generation_config.json").read_text()).items() >= values.items()
    AutoModelForCausalLM.from_pretrained(policy)


def test_side_files_of_a_hub_model_come_from_the_cache(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "models--someone--tiny"
    shutil.copytree(tiny_model, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc" / "generation_config.json").write_text('{"temperature":   0}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    save_checkpoint(plain_learner(Path("someone/tiny"), "grpo"), tmp_path / "step-1", Path("someone/tiny"))
    policy = tmp_path / "step-1" / "policy"
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (policy / name).read_bytes() == (cached / "snapshots" / "abc" / name).read_bytes()


def test_what_does_not_fit_is_refused_with_a_way_out(
    tmp_path: Path, tiny_model: Path, make_learner: MakeLearner
) -> None:
    folder = tmp_path / "step-1"
    save_checkpoint(make_learner("dvpo", DVPO), folder, tiny_model)
    with pytest.raises(CheckpointError, match=r"it has a critic, which does not fit GRPO"):
        load_checkpoint(make_learner("grpo"), folder)
    with pytest.raises(CheckpointError, match=r"shape .*'num_heads': 2.*the configured one .*'num_heads': 1"):
        load_checkpoint(make_learner("ppo"), folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"zero_stage": 3}))
    with pytest.raises(CheckpointError, match=r"saved with ZeRO stage 3 .* set learner\.zero_stage: 3 \(now 2\)"):
        load_checkpoint(make_learner("dvpo", DVPO), folder)
    (folder / "policy" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"incomplete, policy/config\.json is missing"):
        load_checkpoint(make_learner("dvpo", DVPO), folder)
