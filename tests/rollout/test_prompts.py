"""Rendering: the chat template, token ids, and the prompts and tokenizers that are refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from cluster.warmstart import build_tokenizer
from rollout.component import UserError
from rollout.prompts import load_tokenizer, render
from rollout.tasks.base import Example


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer("0123456789+ ", 64)


def example(name: str, text: str) -> Example:
    return Example(name, ({"role": "user", "content": text},), "2", {"level": 3})


def test_a_prompt_ends_where_the_assistant_begins(tokenizer: Any) -> None:
    [prompt] = render(tokenizer, [example("a", "1+1")], "sums")
    assert tokenizer.convert_ids_to_tokens(list(prompt.token_ids)) == ["<|user|>", "1", "+", "1", "<|assistant|>"]
    assert (prompt.prompt_id, prompt.reference, prompt.task, prompt.extra) == ("a", "2", "sums", {"level": 3})
    assert tokenizer.decode(prompt.token_ids) == "<|user|>1+1<|assistant|>"
    assert tokenizer.decode(prompt.token_ids, skip_special_tokens=True) == "1+1"


def test_several_turns(tokenizer: Any) -> None:
    turns = (("system", "0"), ("user", "1"), ("assistant", "2"), ("user", "3"))
    several = Example("a", tuple({"role": role, "content": content} for role, content in turns), None)
    [prompt] = render(tokenizer, [several], "t")
    expected = "<|system|>0<|user|>1<|assistant|>2<|end|><|user|>3<|assistant|>"
    assert tokenizer.decode(prompt.token_ids) == expected


def test_rows_do_not_depend_on_each_other(tokenizer: Any) -> None:
    examples = [example(str(i), "1+" * i + "1") for i in range(20)]
    together = render(tokenizer, examples, "t")
    assert together == [render(tokenizer, [one], "t")[0] for one in examples]
    assert [len(prompt.token_ids) for prompt in together] == [2 * i + 3 for i in range(20)]
    assert render(tokenizer, [], "t") == []


def test_long_prompts_are_refused(tokenizer: Any) -> None:
    examples = [example("short", "1"), example("long", "1" * 9), example("longest", "1" * 12)]
    assert len(render(tokenizer, examples, "t", max_prompt_tokens=14)) == 3
    with pytest.raises(UserError) as caught:
        render(tokenizer, examples, "t", max_prompt_tokens=10)
    assert str(caught.value) == (
        "rollout.max_prompt_tokens: 2 of 3 prompts are longer than 10 tokens; the longest, 'longest', has 14"
    )


def test_unknown_characters_are_reported(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rollout.prompts"):
        render(tokenizer, [example("a", "1+1")], "t")
        assert not caplog.records
        render(tokenizer, [example("a", "1+1"), example("b", "1*x")], "t")
    assert caplog.messages == ["1 of 2 prompts have characters that the tokenizer does not know"]


def test_a_saved_tokenizer_renders_the_same(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "m")
    loaded = load_tokenizer(str(tmp_path / "m"))
    assert render(loaded, [example("a", "12+3")], "t") == render(tokenizer, [example("a", "12+3")], "t")


def test_tokenizers_that_cannot_be_used(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    tokenizer.save_pretrained(tmp_path / "models" / "demo")
    with pytest.raises(UserError, match=r"model\.path: no such folder: .*/dmo; did you mean '.*/models/demo'\?"):
        load_tokenizer(str(tmp_path / "models" / "dmo"))
    (tmp_path / "models" / "bare").mkdir()
    with pytest.raises(UserError, match=r"model\.path: cannot load a tokenizer from '.*bare': "):
        load_tokenizer(str(tmp_path / "models" / "bare"))
    silent = build_tokenizer("01", 64)
    silent.chat_template = None
    silent.save_pretrained(tmp_path / "models" / "silent")
    with pytest.raises(UserError, match="has no chat template; add one to"):
        load_tokenizer(str(tmp_path / "models" / "silent"))
