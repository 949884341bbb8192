"""Rendering: the chat template, token ids, and the prompts and tokenizers that are refused."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cluster.warmstart.warmstart import build_tokenizer
from rollout.component import StrictModel, UserError
from rollout.data.prompts import load_tokenizer, render, render_split
from rollout.tasks.base import Example, Task


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer("0123456789+ ", 64)


def example(name: str, text: str) -> Example:
    return Example(example_id=name, messages=({"role": "user", "content": text},), reference="2", extra={"level": 3})


def test_a_prompt_ends_where_the_assistant_begins(tokenizer: Any) -> None:
    [prompt] = render(tokenizer, [example("a", "1+1")], "sums")
    assert tokenizer.convert_ids_to_tokens(list(prompt.token_ids)) == ["<|user|>", "1", "+", "1", "<|assistant|>"]
    assert (prompt.prompt_id, prompt.reference, prompt.task, prompt.extra) == ("a", "2", "sums", {"level": 3})
    assert tokenizer.decode(prompt.token_ids) == "<|user|>1+1<|assistant|>"
    assert tokenizer.decode(prompt.token_ids, skip_special_tokens=True) == "1+1"


def test_several_turns(tokenizer: Any) -> None:
    turns = (("system", "0"), ("user", "1"), ("assistant", "2"), ("user", "3"))
    several = Example(
        example_id="a", messages=tuple({"role": role, "content": content} for role, content in turns), reference=None
    )
    [prompt] = render(tokenizer, [several], "t")
    expected = "<|system|>0<|user|>1<|assistant|>2<|end|><|user|>3<|assistant|>"
    assert tokenizer.decode(prompt.token_ids) == expected


def test_rows_do_not_depend_on_each_other(tokenizer: Any) -> None:
    examples = [example(str(i), "1+" * i + "1") for i in range(20)]
    together = render(tokenizer, examples, "t")
    assert together == [render(tokenizer, [one], "t")[0] for one in examples]
    assert [len(prompt.token_ids) for prompt in together] == [2 * i + 3 for i in range(20)]
    assert render(tokenizer, [], "t") == []


class Questions(Task):
    """Gives what it was given; leaves questions out if it may."""

    def __init__(self, examples: list[Example], may_leave_out: bool) -> None:
        super().__init__(StrictModel())
        self._examples, self._may = examples, may_leave_out
        self.left_out: dict[str, str] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        return ()

    def examples(self, split: str) -> list[Example]:
        return self._examples

    def leave_out(self, split: str, reasons: Mapping[str, str]) -> bool:
        self.left_out |= {f"{split} {name}": reason for name, reason in reasons.items()}
        return self._may


def test_long_prompts_are_refused_or_left_out(tokenizer: Any) -> None:
    examples = [example("short", "1"), example("long", "1" * 9), example("longest", "1" * 12), example("end", "2")]
    assert len(render_split(tokenizer, Questions(examples, False), "train", 14)) == 4
    with pytest.raises(UserError) as caught:
        render_split(tokenizer, Questions(examples, False), "train", 10)
    message = "rollout.max_prompt_tokens: 2 of 4 prompts of split 'train' are longer than 10 tokens; the longest, "
    assert str(caught.value) == message + "'longest', has 14 [data-prompt-too-long]"
    placed = [replace(examples[2], place="a.jsonl:7"), examples[0]]
    with pytest.raises(UserError) as caught:
        render_split(tokenizer, Questions(placed, False), "train", 10)
    assert str(caught.value).endswith("; the longest, a.jsonl:7, has 14 [data-prompt-too-long]")
    task = Questions(examples, True)
    assert [prompt.prompt_id for prompt in render_split(tokenizer, task, "train", 10)] == ["short", "end"]
    assert task.left_out == {
        "train long": "the prompt has 11 tokens, more than rollout.max_prompt_tokens: 10",
        "train longest": "the prompt has 14 tokens, more than rollout.max_prompt_tokens: 10",
    }
    assert [prompt.prompt_id for prompt in render_split(tokenizer, task, "train", 10, first=2)] == ["short"]


def test_unknown_characters_are_reported(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    core = Tokenizer(models.WordLevel(tokenizer.get_vocab(), unk_token="<|unknown|>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    core.add_special_tokens(tokenizer.all_special_tokens)
    template = tokenizer.chat_template
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<|unknown|>", chat_template=template)
    with caplog.at_level(logging.WARNING, "rollout.data.prompts"):
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


REFUSALS = {
    "no system messages": (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system\n messages here') }}{% endif %}x",
        ("system", "user"),
        "the template says: no system messages here; a system message may be from data.task.system_prompt",
    ),
    "one question only": (
        "{% if messages | length > 1 %}{{ raise_exception('one question only') }}{% endif %}x",
        ("user", "assistant", "user"),
        "has the roles user, assistant, user, and the template says: one question only",
    ),
    "roles must alternate": (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('alternate!') }}{% endif %}x{% endfor %}",
        ("user", "user"),
        "has the roles user, user, and the template says: alternate!",
    ),
    "a mistake in the template": (
        "{% if messages | length > 1 %}{{ messages[0].nothing.more }}{% endif %}x",
        ("user", "user"),
        "has no attribute 'nothing'",
    ),
}


@pytest.mark.parametrize(("template", "roles", "words"), REFUSALS.values(), ids=REFUSALS)
def test_a_template_that_refuses_is_told_in_its_own_words(template: str, roles: tuple[str, ...], words: str) -> None:
    tokenizer = build_tokenizer("0123456789+ x", 64)
    tokenizer.chat_template, tokenizer.name_or_path = template, "models/mine"
    messages = tuple({"role": role, "content": "1"} for role in roles)
    bad = replace(example("b", "1"), messages=messages, place="train.jsonl:7")
    task = Questions([example("a", "1"), bad, replace(bad, example_id="c")], may_leave_out=False)
    with pytest.raises(UserError) as caught:
        render_split(tokenizer, task, "train", 64)
    message = str(caught.value)
    assert message.startswith(
        "model.path: the chat template of 'models/mine' refuses 2 of 3 prompts of split 'train'; the first, "
        "train.jsonl:7, has the roles "
    )
    assert words in message
    with pytest.raises(UserError, match=r"^model\.path: the chat template of 'models/mine' refuses 1 of 1 prompts; "):
        render(tokenizer, [bad], "t")
    tolerant = Questions([example("a", "1"), bad], may_leave_out=True)
    assert [prompt.prompt_id for prompt in render_split(tokenizer, tolerant, "train", 64)] == ["a"]
    assert list(tolerant.left_out) == ["train b"]
    assert tolerant.left_out["train b"].startswith("the chat template of model.path says: ")


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3", "qwen3_moe", "llama"])
@pytest.mark.parametrize("named", ["Qwen2Tokenizer", "Qwen2TokenizerFast", "PreTrainedTokenizerFast", None])
def test_the_tokenizer_is_the_one_that_transformers_chooses(
    model_type: str, named: str | None, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    for file, key, value in (
        ("config.json", "model_type", model_type),
        ("tokenizer_config.json", "tokenizer_class", named),
    ):
        written = json.loads((folder / file).read_text()) | {key: value}
        (folder / file).write_text(json.dumps({name: each for name, each in written.items() if each is not None}))
    found, expected = load_tokenizer(str(folder)), AutoTokenizer.from_pretrained(folder)
    assert type(found) is type(expected)
    chat = [{"role": "user", "content": "1+2=?"}]
    assert found.apply_chat_template(chat) == expected.apply_chat_template(chat)


@pytest.mark.slow
def test_a_tokenizer_is_loaded_without_torch(tiny_model: Path) -> None:
    """The controller has no other use for it."""
    code = (
        "import sys; from rollout.data.prompts import load_tokenizer; "
        f"load_tokenizer({str(tiny_model)!r}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("text", ["12345 " * 1_000_000, "1" * 6_000_000, "x" * 6_000_000, " " * 6_000_000 + "1"])
def test_a_huge_prompt_is_refused_by_its_beginning(tokenizer: Any, text: str) -> None:
    """Tokens of its whole text would take half a minute here: of 50 MB, minutes."""
    begin = time.process_time()
    task = Questions([example("short", "1"), replace(example("huge", text), place="a.jsonl:2")], False)
    with pytest.raises(UserError, match=r"1 of 2 prompts .* the longest, a\.jsonl:2, has at least \d+ \[[a-z-]+\]$"):
        render_split(tokenizer, task, "train", 48)
    assert time.process_time() - begin < 1.0


def test_a_long_prompt_that_fits_is_read_to_its_end(tokenizer: Any) -> None:
    """A bound of tokens that leaves room for it is enough, however long it is."""
    [prompt] = render_split(tokenizer, Questions([example("a", "1" * 4000)], False), "train", 4100)
    assert len(prompt.token_ids) == 4002
