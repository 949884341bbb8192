"""The data set reader: what is kept, how rows are named, and every message for bad data."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from cluster.cli import main
from rollout.component import ComponentSpec, UserError, build
from rollout.tasks import TASKS
from rollout.tasks.base import Example, Task

GOOD = {"prompt": "1+1", "answer": "2"}
ANY_REJECTS = {"on_bad_row": "reject", "rejects": "bad.jsonl", "max_reject_frac": 1.0}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with one good evaluation file."""
    monkeypatch.chdir(tmp_path)
    write_jsonl("test.jsonl", {"prompt": "held out", "answer": "1"})
    return tmp_path


def write_jsonl(path: str, *rows: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path: str, *rows: dict[str, Any], row_group_size: int = 2) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=row_group_size)


def dataset(**options: Any) -> Task:
    spec: dict[str, Any] = {"train": ["train.jsonl"], "eval": {"test": ["test.jsonl"]}} | options
    task: Task = build(ComponentSpec(type="dataset", **spec), TASKS, Task, "data.task")
    return task


def train(*rows: Any, **options: Any) -> list[Example]:
    write_jsonl("train.jsonl", *rows)
    return list(dataset(**options).examples("train"))


def rejected(path: str = "bad.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def refusal(**options: Any) -> str:
    with pytest.raises(UserError) as caught:
        dataset(**options).examples("train")
    return str(caught.value)


class TestRows:
    """Good rows become questions."""

    def test_prompt_answer_and_further_columns(self) -> None:
        row = GOOD | {"level": 3, "tags": ["a", {"b": None}], "none": None}
        assert train(row) == [
            Example(
                example_id="train.jsonl:1",
                messages=({"role": "user", "content": "1+1"},),
                reference="2",
                extra={"level": 3, "tags": ["a", {"b": None}], "none": None},
            )
        ]

    def test_chat(self) -> None:
        chat = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user")]
        assert train({"messages": chat})[0].messages == tuple(chat)

    @pytest.mark.parametrize(
        ("answer", "reference"), [("x ", "x "), (7, "7"), (-0.5, "-0.5"), (None, None), (10**30, "1" + "0" * 30)]
    )
    def test_answers(self, answer: Any, reference: str | None) -> None:
        assert train({"prompt": "p", "answer": answer})[0].reference == reference

    def test_system_prompt(self) -> None:
        own = [{"role": "system", "content": "own"}, {"role": "user", "content": "q"}]
        found = train(GOOD, {"messages": own}, {"messages": own[1:]}, system_prompt="S")
        system = {"role": "system", "content": "S"}
        assert [example.messages[0] for example in found] == [system, own[0], system]
        assert [len(example.messages) for example in found] == [2, 2, 2]

    def test_columns_of_other_names(self) -> None:
        row = {"question": "q", "prompt": "kept", "gold": 4, "answer": "kept too", "key": "k1", "id": 9}
        write_jsonl("test.jsonl", row)
        (found,) = train(row, prompt_column="question", answer_column="gold", id_column="key", messages_column=None)
        assert found == Example(
            example_id="k1",
            messages=({"role": "user", "content": "q"},),
            reference="4",
            extra={"prompt": "kept", "answer": "kept too", "id": 9},
        )

    def test_chat_in_a_column_called_prompt(self) -> None:
        chat = [{"role": "user", "content": "q"}]
        write_jsonl("test.jsonl", {"prompt": chat})
        assert train({"prompt": chat}, prompt_column=None, messages_column="prompt")[0].messages == tuple(chat)

    def test_blank_lines_byte_order_mark_and_windows_line_ends(self) -> None:
        Path("train.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n   \n{"prompt": "\xc3\xa9\xe2\x80\xa8b"}')
        found = dataset().examples("train")
        assert [(e.example_id, e.messages[0]["content"]) for e in found] == [
            ("train.jsonl:1", "a"),
            ("train.jsonl:4", "é\u2028b"),
        ]

    def test_parquet_equals_jsonl(self) -> None:
        chat: dict[str, Any] = {"messages": [{"role": "user", "content": "q", "name": None}]}
        rows = [GOOD | {"n": 1}, GOOD | {"n": 2}, chat | {"n": 3}, GOOD | {"id": "x"}, GOOD]
        write_parquet("train.parquet", *[dict.fromkeys(("prompt", "answer", "messages", "n", "id")) | r for r in rows])
        found = dataset(train="train.parquet").examples("train")
        expected = train(*rows)
        assert [e.messages for e in found] == [e.messages for e in expected]
        assert [e.reference for e in found] == ["2", "2", None, "2", "2"] == [e.reference for e in expected]
        assert [e.extra["n"] for e in found] == [1, 2, 3, None, None]
        assert [e.example_id for e in found] == [*(f"train.parquet:{i}" for i in (1, 2, 3)), "x", "train.parquet:5"]
        assert found[2].messages == ({"role": "user", "content": "q"},)

    def test_parquet_over_several_batches(self) -> None:
        write_parquet("train.parquet", *[{"prompt": str(i)} for i in range(2500)], row_group_size=900)
        found = dataset(train="train.parquet").examples("train")
        assert [e.messages[0]["content"] for e in found] == [str(i) for i in range(2500)]
        assert [e.example_id for e in found] == [f"train.parquet:{i}" for i in range(1, 2501)]

    def test_reading_does_not_load_pyarrow_or_torch(self) -> None:
        write_jsonl("train.jsonl", GOOD)
        code = (
            "import sys; from rollout.tasks.dataset import Dataset as D;"
            "n = len(D(D.Config(train=['train.jsonl'], eval={'test': ['test.jsonl']})).examples('train'));"
            "print(n, sorted({'pyarrow', 'torch'} & set(sys.modules)))"
        )
        environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": ""}
        shown = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert shown.stdout == "1 []\n"


class TestFilesAndNames:
    """Paths, globs, splits and ids."""

    def test_globs_are_sorted_and_paths_keep_their_order(self) -> None:
        for name in ("b", "a", "c/d", "z"):
            write_jsonl(f"data/{name}.jsonl", {"prompt": name})
        found = dataset(train=["data/z.jsonl", "data/[ab].jsonl", "data/**/d.jsonl"]).examples("train")
        assert [e.messages[0]["content"] for e in found] == ["z", "a", "b", "c/d"]

    def test_a_name_that_looks_like_a_glob(self) -> None:
        write_jsonl("a[1].jsonl", GOOD)
        assert dataset(train="a[1].jsonl").examples("train")[0].example_id == "a[1].jsonl:1"

    def test_files_of_one_name_are_told_apart(self) -> None:
        for place in ("x/1", "y/1", "y/2"):
            write_jsonl(f"{place}/part.jsonl", GOOD)
        found = dataset(train="*/*/part.jsonl").examples("train")
        assert [e.example_id for e in found] == ["x/1/part.jsonl:1", "y/1/part.jsonl:1", "2/part.jsonl:1"]

    def test_ids_are_stable_and_independent_of_the_folder(self, folder: Path) -> None:
        first = [e.example_id for e in train(GOOD, GOOD | {"id": 5}, GOOD)]
        assert first == ["train.jsonl:1", "5", "train.jsonl:3"]
        again = dataset(train=str(folder / "train.jsonl")).examples("train")
        assert [e.example_id for e in again] == first

    def test_splits_in_their_order_and_may_share_ids(self) -> None:
        write_jsonl("train.jsonl", GOOD | {"id": 1})
        write_jsonl("ood.jsonl", GOOD | {"id": 1})
        task = dataset(eval={"zz": "test.jsonl", "aa": ["ood.jsonl"]})
        assert task.splits == ("zz", "aa")
        assert [task.examples(s)[0].example_id for s in ("train", "zz", "aa")] == ["1", "test.jsonl:1", "1"]
        with pytest.raises(UserError, match=r"no split 'traim'; did you mean 'train'\?"):
            task.examples("traim")


# content of line 2 of train.jsonl, and what the message says after "train.jsonl:2: "
BAD_LINES: dict[str, tuple[bytes, str]] = {
    "UTF-8": (b'{"prompt": "\xe9"}', "not UTF-8: byte 0xe9 at position 13 of the line"),
    "JSON": (b'{"prompt": }', "not valid JSON: Expecting value at column 12; every line must be one JSON object"),
    "key twice": (b'{"prompt": "a", "prompt": "b"}', "not valid JSON: key 'prompt' is given twice"),
    "too deep": (b"[" * 100_000, "not valid JSON: maximum recursion depth exceeded"),
    "list": (b"[1]", "a row must be an object with named columns, not a list ([1])"),
    "null": (b"null", "a row must be an object with named columns, not null"),
    "no columns": (b"{}", "no column 'prompt' or 'messages'; the row has: none"),
    "misspelt": (
        b'{"promt": "a", "answer": 1}',
        "no column 'prompt' or 'messages'; did you mean 'promt'? the row has: answer, promt",
    ),
    "null prompt": (b'{"prompt": null}', "column 'prompt' is null and column 'messages' is absent"),
    "number": (b'{"prompt": 12}', "column 'prompt' must be text, not a number (12)"),
    "blank": (b'{"prompt": " "}', "column 'prompt' is empty"),
    "chat as prompt": (b'{"prompt": []}', "column 'prompt' must be text, not a list; if it is a chat, set prompt_col"),
    "half": (b'{"prompt": "\\ud83d"}', "column 'prompt' has half a character, '\\ud83d', at position 1"),
    "both": (b'{"prompt": "a", "messages": []}', "both columns 'prompt' and 'messages' are filled; set one of"),
    "not a list": (b'{"messages": "hi"}', "column 'messages' must be a list of messages, not text ('hi')"),
    "no messages": (b'{"messages": []}', "column 'messages' is an empty list; it must end with a message of the user"),
    "no user": (
        b'{"messages": [{"role": "system", "content": "s"}]}',
        "column 'messages' has no message of the user; the roles are system",
    ),
    "answered": (
        b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}',
        "column 'messages' must end with a message of the user, not of the assistant",
    ),
    "role": (
        b'{"messages": [{"role": "usr", "content": "q"}]}',
        "column 'messages', message 1: unknown role 'usr'; did you mean 'user'? valid: assistant, system, tool, user",
    ),
    "no content": (
        b'{"messages": [{"role": "user", "contents": "q"}]}',
        "column 'messages', message 1 has no 'content'; did you mean 'contents'? it has: contents, role",
    ),
    "bare message": (
        b'{"messages": ["hi"]}',
        "column 'messages', message 1 must be an object with 'role' and 'content', not text ('hi')",
    ),
    "content parts": (
        b'{"messages": [{"role": "user", "content": [1]}]}',
        "column 'messages', message 1: 'content' must be text, not a list ([1])",
    ),
    "empty question": (
        b'{"messages": [{"role": "user", "content": ""}]}',
        "column 'messages', message 1: 'content' is empty",
    ),
    "answer type": (
        b'{"prompt": "a", "answer": true}',
        "column 'answer' must be text or a finite number, not true/false (True)",
    ),
    "answer NaN": (b'{"prompt": "a", "answer": NaN}', "column 'answer' must be text or a finite number, not a number"),
    "empty answer": (b'{"prompt": "a", "answer": ""}', "column 'answer' is empty"),
    "id type": (b'{"prompt": "a", "id": 1.5}', "column 'id' must be text or a whole number, not a number (1.5)"),
    "id twice": (b'{"prompt": "a", "id": "7"}', "id '7' is taken by train.jsonl:1; ids must be unique in a split"),
}


class TestBadRows:
    """One row is wrong: its place, what is wrong, and what would be right."""

    @pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES.keys())
    def test_line(self, line: bytes, message: str) -> None:
        Path("train.jsonl").write_bytes(b'{"prompt": "good", "id": 7}\n' + line + b"\n")
        assert refusal().startswith(f"train.jsonl:2: {message}")

    @pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES.keys())
    def test_the_same_line_is_rejected(self, line: bytes, message: str) -> None:
        good = b'{"prompt": "good", "id": 7}\n'
        Path("train.jsonl").write_bytes(good + line + b"\n" + b'{"prompt": "also", "answer": 1}\n')
        task = dataset(**ANY_REJECTS)
        assert [e.example_id for e in task.examples("train")] == ["7", "train.jsonl:3"]
        (reject,) = rejected()
        assert (reject["split"], reject["file"], reject["number"]) == ("train", "train.jsonl", 2)
        assert reject["reason"].startswith(message)
        assert task.remarks()[0] == "data.task.rejects: rows are rejected (train 1 of 3); see bad.jsonl"

    def test_a_rejected_line_that_is_no_json_is_kept_as_text(self) -> None:
        Path("train.jsonl").write_bytes(b'{"prompt": "good"}\n{"prompt": "\xe9"}\n')
        dataset(**ANY_REJECTS).examples("train")
        assert rejected()[0]["row"] == '{"prompt": "\\xe9"}'

    def test_parquet_rows(self) -> None:
        write_parquet("train.parquet", GOOD, GOOD, GOOD | {"prompt": None}, GOOD | {"prompt": ""})
        assert refusal(train="train.parquet").splitlines() == [
            "train.parquet, row 3: column 'prompt' is null and column 'messages' is absent [data-bad-row]",
            "train.parquet, row 4: column 'prompt' is empty [data-bad-row]",
        ]

    def test_parquet_values_that_python_cannot_hold(self) -> None:
        text = pyarrow.array([b"ok", b"\xff"]).view(pyarrow.string())
        parquet.write_table(pyarrow.table({"prompt": text}), "train.parquet")
        assert refusal(train="train.parquet").startswith("train.parquet, row 2: text that is not UTF-8: ")
        far = pyarrow.array([0, 2**60], pyarrow.timestamp("ms"))
        parquet.write_table(pyarrow.table({"prompt": ["a", "b"], "when": far}), "train.parquet")
        message = refusal(train="train.parquet")
        assert message.startswith("train.parquet, row 2: a value that Python cannot hold: ")
        assert len(message.splitlines()) == 1

    def test_an_answer_can_be_required(self) -> None:
        write_jsonl("train.jsonl", GOOD, {"prompt": "p", "anwser": "2"})
        message = "train.jsonl:2: no column 'answer'; did you mean 'anwser'? the row has: anwser, prompt [data-bad-row]"
        assert refusal(require_answer=True) == message

    def test_lacking_answers_are_counted(self) -> None:
        write_jsonl("train.jsonl", GOOD, {"prompt": "a"}, {"prompt": "b"})
        assert dataset().remarks() == [
            "data.task: split 'train': 2 of 3 questions have no 'answer', the first is train.jsonl:2; rewards that "
            "compare with it fail on them"
        ]
        write_jsonl("train.jsonl", {"prompt": "a", "answer": 3})
        task = dataset(answer_column=None)
        assert (task.examples("train")[0].extra, task.remarks()) == ({"answer": 3}, [])

    def test_questions_that_are_trained_on_and_measured(self) -> None:
        write_jsonl("train.jsonl", {"prompt": "a", "answer": 1}, GOOD, {"prompt": "b", "answer": 2})
        write_jsonl("test.jsonl", {"prompt": "c", "answer": 3}, {"prompt": "b", "answer": 2})
        write_jsonl("more.jsonl", {"prompt": "c", "answer": 3})
        assert dataset(eval={"test": "test.jsonl", "more": "more.jsonl"}).remarks() == [
            "data.task.eval.test: 1 of 2 questions are training questions too, so they measure what was learnt by "
            "heart; the first is test.jsonl:2, which is train.jsonl:3"
        ]

    def test_the_first_five_and_how_many(self) -> None:
        write_jsonl("train.jsonl", *[{"prompt": ""}] * 4, GOOD)
        write_jsonl("test.jsonl", *[{"prompt": 1}] * 4)
        lines = refusal(eval={"test": "test.jsonl", "more": "none.jsonl"}).splitlines()
        assert [line.split(": ")[0] for line in lines[:5]] == [
            "data.task.eval.more.0",
            *(f"train.jsonl:{number}" for number in (1, 2, 3, 4)),
        ]
        assert lines[5:] == ["9 problems in the data; above are the first 5"]


class TestRejects:
    """Bad rows are left out, and nothing vanishes."""

    def test_counts_add_up(self) -> None:
        write_jsonl("train.jsonl", GOOD | {"id": 1}, GOOD | {"id": 1}, {"prompt": ""}, GOOD)
        write_jsonl("test.jsonl", {"question": "q"}, GOOD)
        task = dataset(**ANY_REJECTS)
        assert [e.example_id for e in task.examples("train")] == ["1", "train.jsonl:4"]
        assert [e.example_id for e in task.examples("test")] == ["test.jsonl:2"]
        assert task.remarks()[0] == "data.task.rejects: rows are rejected (train 2 of 4, test 1 of 2); see bad.jsonl"
        assert rejected() == [
            {
                "split": "train",
                "file": "train.jsonl",
                "number": 2,
                "reason": "id '1' is taken by train.jsonl:1; ids must be unique in a split",
                "row": GOOD | {"id": 1},
            },
            {
                "split": "train",
                "file": "train.jsonl",
                "number": 3,
                "reason": "column 'prompt' is empty",
                "row": {"prompt": ""},
            },
            {
                "split": "test",
                "file": "test.jsonl",
                "number": 1,
                "reason": "no column 'prompt' or 'messages'; the row has: question",
                "row": {"question": "q"},
            },
        ]
        assert sorted(path.name for path in Path().iterdir()) == ["bad.jsonl", "test.jsonl", "train.jsonl"]

    def test_old_rejects_are_replaced(self) -> None:
        Path("bad.jsonl").write_text("old\n")
        train(GOOD, on_bad_row="reject", rejects="bad.jsonl")
        assert Path("bad.jsonl").read_text() == ""

    def test_values_that_json_does_not_have(self) -> None:
        write_parquet("train.parquet", *[{"prompt": p, "day": datetime.date(2020, 1, 2)} for p in ("a", "")])
        (found,) = dataset(train="train.parquet", **ANY_REJECTS).examples("train")
        assert found.extra == {"day": "2020-01-02"}
        assert rejected()[0]["row"] == {"prompt": "", "day": "2020-01-02"}

    def test_too_many(self) -> None:
        write_jsonl("train.jsonl", *[GOOD] * 17, {"prompt": ""}, GOOD, {"prompt": 1})
        message = refusal(on_bad_row="reject", rejects="bad.jsonl")
        assert message == (
            "data.task.max_reject_frac: 2 of 20 rows of split 'train' are rejected, more than a share of 0.05; the "
            "first is train.jsonl:18: column 'prompt' is empty; all are in bad.jsonl [data-bad-row]"
        )
        assert [reject["number"] for reject in rejected()] == [18, 20]
        assert len(dataset(**ANY_REJECTS | {"max_reject_frac": 0.1}).examples("train")) == 18

    def test_all_rows_bad(self) -> None:
        write_jsonl("train.jsonl", {"promt": "a"}, {"promt": "b"})
        message = refusal(on_bad_row="reject", rejects="bad.jsonl")
        assert message.startswith(
            "data.task.train.0: train.jsonl: all 2 rows are bad; the last is train.jsonl:2: no col"
        )
        assert not Path("bad.jsonl").exists()

    @pytest.mark.parametrize("pattern", ["train.jsonl", "*.jsonl"])
    def test_rejects_among_the_data(self, pattern: str) -> None:
        write_jsonl("train.jsonl", GOOD)
        before = Path("train.jsonl").read_text()
        rejects = "train.jsonl" if pattern == "train.jsonl" else "bad.jsonl"
        message = refusal(train=pattern, on_bad_row="reject", rejects=rejects)
        assert f"data.task.rejects: {rejects} would be read as data by data.task.train.0 ({pattern})" in message
        assert Path("train.jsonl").read_text() == before

    def test_cannot_be_written(self) -> None:
        write_jsonl("train.jsonl", GOOD)
        message = refusal(on_bad_row="reject", rejects="train.jsonl/bad.jsonl")
        assert message.startswith("data.task.rejects: cannot write train.jsonl/bad.jsonl: ")


class TestBadFiles:
    """Files as a whole, and options."""

    def refused(self, train: str | list[str], *phrases: str) -> None:
        message = refusal(train=train)
        assert message.startswith("data.task.train.0: ")
        assert len(message.splitlines()) == 1
        for phrase in phrases:
            assert phrase in message

    def test_no_such_file(self) -> None:
        self.refused("tset.jsonl", "tset.jsonl: no such file; did you mean 'test.jsonl'? data files there: test.jsonl")
        self.refused("nowhere/a.jsonl", "nowhere/a.jsonl: no such file (nor is there a folder 'nowhere' in ")
        self.refused("nowhere/*.jsonl", "no file matches 'nowhere/*.jsonl' in the folder ")

    def test_a_folder(self) -> None:
        Path("data").mkdir()
        self.refused("data", "data: is a folder; give its files, for example 'data/*.jsonl'")

    def test_unsupported_ending(self) -> None:
        Path("train.json").write_text("[]")
        self.refused("train.json", "train.json: unsupported ending '.json'; valid: .jsonl, .parquet, .arrow")
        self.refused("train.*", "unsupported ending '.json'")

    @pytest.mark.parametrize("content", ["", "\n \n"])
    def test_empty(self, content: str) -> None:
        Path("train.jsonl").write_text(content)
        self.refused("train.jsonl", "train.jsonl: the file has no rows")

    def test_empty_parquet(self) -> None:
        parquet.write_table(pyarrow.table({"prompt": pyarrow.array([], pyarrow.string())}), "train.parquet")
        self.refused("train.parquet", "train.parquet: the file has no rows")

    @pytest.mark.parametrize("content", [b"", b"hello", b"PAR1" + bytes(64) + b"PAR1"])
    def test_not_parquet(self, content: bytes) -> None:
        Path("train.parquet").write_bytes(content)
        self.refused("train.parquet", "train.parquet: not a readable Parquet file: ")

    def test_parquet_with_a_column_twice(self) -> None:
        table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["prompt", "prompt"])
        parquet.write_table(table, "train.parquet")
        self.refused("train.parquet", "train.parquet: column 'prompt' is there twice")

    def test_without_pyarrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        write_parquet("train.parquet", GOOD)
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        self.refused("train.parquet", "reading Parquet needs the package pyarrow, which cannot be imported")

    def test_the_same_file_twice(self) -> None:
        write_jsonl("train.jsonl", GOOD)
        message = refusal(train=["train.jsonl", "./tr*.jsonl"])
        assert message == "data.task.train.1: train.jsonl: the file is named twice in this split [config-given-twice]"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train": []}, "data.task.train: Tuple should have at least 1 item"),
            ({"eval": {}}, "data.task.eval: Dictionary should have at least 1 item"),
            ({"eval": {"test": []}}, "data.task.eval: split 'test' has no files"),
            ({"eval": {"train": "a"}}, "data.task.eval: no name for a split: 'train'"),
            ({"eval": {"a/b": "a"}}, "data.task.eval: no name for a split: 'a/b'"),
            ({"promt_column": "q"}, "data.task.promt_column: unknown key; did you mean 'prompt_column'?"),
            ({"prompt_column": "answer"}, "data.task: two of the column options name the same column"),
            ({"prompt_column": None, "messages_column": None}, "data.task: prompt_column and messages_column are both"),
            ({"answer_column": None, "require_answer": True}, "data.task: require_answer: true needs an answer_column"),
            ({"on_bad_row": "reject"}, "data.task: 'on_bad_row: reject' and 'rejects: FILE.jsonl' go together"),
            ({"max_reject_frac": 0.1}, "data.task: max_reject_frac has no effect without 'on_bad_row: reject'"),
            ({"rejects": "bad.jsonl"}, "data.task: 'on_bad_row: reject' and 'rejects: FILE.jsonl' go together"),
            ({"on_bad_row": "skip"}, "data.task.on_bad_row: must be 'error' or 'reject' (got 'skip')"),
        ],
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError) as caught:
            dataset(**options)
        assert str(caught.value).startswith(message)


RUN = """\
name: small
model: {{path: {model}}}
data:
  task:
    type: dataset
    train: [data/train.jsonl]
    eval: {{test: [data/test.jsonl]}}
algorithm: {{preset: ppo}}
rollout:
  max_prompt_tokens: 32
  sampling: {{max_response_tokens: 24}}
training: {{num_steps: 2, prompts_per_step: 2, samples_per_prompt: 2}}
cluster: {{cpus_per_rollout_worker: 0.5, cpus_per_learner_worker: 0.5, object_store_mib: 96}}
"""


class TestCheckCommand:
    """`dvpo check`: exit status 2, one message with the place, no traceback."""

    @pytest.fixture
    def check(self, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
        """Check ``run.yaml``, whose data are two good files."""
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        Path("run.yaml").write_text(RUN.format(model=tiny_model))
        write_jsonl("data/train.jsonl", GOOD, GOOD)
        write_jsonl("data/test.jsonl", GOOD)
        return lambda *flags: CliRunner().invoke(main, ["check", "run.yaml", *flags], prog_name="dvpo")

    def refused(self, result: Result, *lines: str) -> None:
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        found = [line for line in result.output.splitlines() if line.startswith("error: ")]
        assert [line.removeprefix("error: ") for line in found] == list(lines)

    def test_good_data(self, check: Callable[..., Result]) -> None:
        result = check()
        assert result.exit_code == 0, result.output

    def test_row_without_its_column(self, check: Callable[..., Result]) -> None:
        write_jsonl("data/train.jsonl", GOOD, {"promt": "1+1", "answer": "2"})
        where = "data/train.jsonl:2: no column 'prompt' or 'messages'; "
        self.refused(check(), where + "did you mean 'promt'? the row has: answer, promt [data-bad-row]")

    def test_missing_file(self, check: Callable[..., Result]) -> None:
        Path("data/train.jsonl").rename("data/train1.jsonl")
        where = "run.yaml:6: data.task.train.0: data/train.jsonl: no such file; "
        self.refused(
            check(), where + "did you mean 'train1.jsonl'? data files there: test.jsonl, train1.jsonl [file-not-found]"
        )

    def test_bad_json_and_a_bad_parquet_row(self, check: Callable[..., Result]) -> None:
        with Path("data/train.jsonl").open("a") as file:
            file.write('{"prompt": "1+1"')
        write_parquet("data/test.parquet", GOOD, GOOD | {"prompt": ""})
        self.refused(
            check("--set", "data.task.eval.test=[data/test.parquet]"),
            "data/train.jsonl:3: not valid JSON: Expecting ',' delimiter at column 17; every line must be one JSON "
            "object [data-bad-row]",
            "data/test.parquet, row 2: column 'prompt' is empty [data-bad-row]",
        )
