"""Data that could be read as something else than was meant: whole numbers with a gap, chats as text, odd columns."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from rollout.component import UserError
from rollout.data.preference_pairs import read_pair
from rollout.data.prompts import load_tokenizer, render
from rollout.rewards.remote import Remote
from rollout.tasks.base import Example
from rollout.tasks.dataset import Dataset
from rollout.tasks.questions import BadRow, is_chat_as_text
from rollout.tasks.rows import Row
from rollout.trajectory import FinishReason, Trajectory

CHAT = [{"role": "user", "content": "2+3"}]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.jsonl").write_text('{"prompt": "held out", "answer": "1"}\n')


def in_jsonl(rows: list[dict[str, Any]]) -> str:
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "train.jsonl"


def in_parquet(rows: list[dict[str, Any]]) -> str:
    parquet.write_table(pyarrow.Table.from_pylist(rows), "train.parquet")
    return "train.parquet"


def in_arrow(rows: list[dict[str, Any]]) -> str:
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile("train.arrow", "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return "train.arrow"


WRITERS = [in_jsonl, in_parquet, in_arrow]
Writer = Callable[[list[dict[str, Any]]], str]


def examples(path: str, **options: Any) -> list[Example]:
    spec: dict[str, Any] = {"train": [path], "eval": {"test": ["test.jsonl"]}, **options}
    return list(Dataset(Dataset.Config.model_validate(spec)).examples("train"))


class TestNumbersAsText:
    """A column of whole numbers with a gap is stored as fractions."""

    @pytest.mark.parametrize("write", WRITERS)
    def test_whole_numbers_with_a_gap(self, write: Writer) -> None:
        rows = [{"prompt": f"p{n}", "answer": value} for n, value in enumerate([5.0, -6.0, None, 0.0, -0.0, 2.0**53])]
        found = [example.reference for example in examples(write(rows))]
        assert found == ["5", "-6", None, "0", "0", "9007199254740992"]

    @pytest.mark.parametrize("write", WRITERS)
    def test_fractions_stay(self, write: Writer) -> None:
        rows = [{"prompt": f"p{n}", "answer": value} for n, value in enumerate([0.5, 2.0, -1.25])]
        assert [example.reference for example in examples(write(rows))] == ["0.5", "2", "-1.25"]

    @pytest.mark.parametrize("write", WRITERS)
    def test_ids_with_a_gap(self, write: Writer) -> None:
        rows = [{"prompt": f"p{n}", "id": value} for n, value in enumerate([17.0, None, 3.0])]
        path = write(rows)
        assert [example.example_id for example in examples(path)] == ["17", f"{path}:2", "3"]

    def test_a_text_is_nobody_s_number(self) -> None:
        rows = [{"prompt": "p", "answer": "5.0"}, {"prompt": "q", "answer": "05"}]
        assert [example.reference for example in examples(in_parquet(rows))] == ["5.0", "05"]

    @pytest.mark.parametrize("kind", [pyarrow.float32(), pyarrow.float16()])
    def test_numbers_of_few_bits_are_what_was_written(self, kind: pyarrow.DataType) -> None:
        """Not 0.10000000149011612."""
        numbers = pyarrow.array([0.1, 5.0, None]).cast(kind)
        columns = {"prompt": ["a", "b", "c"], "answer": numbers, "share": numbers}
        parquet.write_table(pyarrow.table(columns), "train.parquet")
        found = examples("train.parquet")
        assert [example.reference for example in found] == ["0.1", "5", None]
        assert [example.extra["share"] for example in found] == [0.1, 5.0, None]

    def test_decimals_keep_their_digits(self) -> None:
        rows = [{"prompt": p, "answer": Decimal(text)} for p, text in (("a", "5.00"), ("b", "0.25"))]
        assert [example.reference for example in examples(in_parquet(rows))] == ["5.00", "0.25"]


# a text, and whether it is a chat
TEXTS: list[tuple[str, bool]] = [
    (json.dumps(CHAT), True),
    (json.dumps(CHAT, indent=2), True),
    (json.dumps(CHAT[0]), True),
    (json.dumps({"messages": CHAT}), True),
    (json.dumps([{"role": "system", "content": "s"}, *CHAT, {"role": "tool", "content": None, "name": "x"}]), True),
    (repr(CHAT), True),  # as a table of texts is written from lists
    (f"  {CHAT!r}\n", True),
    (json.dumps([{"from": "human", "value": "2+3"}]), True),
    ("2+3", False),
    ("[1, 2, 3]: what is the sum?", False),
    ("[1, 2, 3]", False),
    ('{"role": "user"}', False),
    ('Turn [{"role": "user", "content": "hi"}] into YAML', False),
    ('[{"role": "user", "content": "hi"}] is what, in YAML?', False),
    ('[{"role": "user", "content": "cut', False),
    ("[{'role': open('x'), 'content': 'code is not run'}]", False),
    (r'{"from": "\d", "to": 3}', False),
    ("[" * 50_000 + '"role"', False),
    ("[]", False),
    ("", False),
]


class TestChatsAsText:
    """A chat that was written into a text column."""

    @pytest.mark.parametrize(("text", "is_chat"), TEXTS, ids=[text[:40] for text, _ in TEXTS])
    def test_which_text_is_a_chat(self, text: str, is_chat: bool) -> None:
        assert is_chat_as_text(text) is is_chat

    @pytest.mark.parametrize("text", [text for text, is_chat in TEXTS if is_chat])
    @pytest.mark.parametrize("write", [in_jsonl, in_parquet])
    def test_it_is_no_question(self, write: Writer, text: str) -> None:
        path = write([{"prompt": "1+1"}, {"prompt": text}])
        with pytest.raises(UserError) as caught:
            examples(path)
        place = "train.jsonl:2" if path == "train.jsonl" else "train.parquet, row 2"
        assert str(caught.value).startswith(f"{place}: column 'prompt' holds a chat written as text")
        assert "set prompt_column: null and messages_column: prompt" in str(caught.value)

    @pytest.mark.parametrize("text", [json.dumps(CHAT), json.dumps(CHAT, indent=1)])
    @pytest.mark.parametrize("write", WRITERS)
    def test_it_is_read_as_a_chat_where_the_options_say_so(self, write: Writer, text: str) -> None:
        (found,) = examples(write([{"prompt": text}]), prompt_column=None, messages_column="prompt", eval=chats())
        assert found.messages == tuple(CHAT)
        (found,) = examples(write([{"messages": text}]))
        assert found.messages == tuple(CHAT)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (repr(CHAT), "must be a list of messages, not text .* as text it has to be JSON"),
            ('{"role": "user", "content": "q"}', "must be a list of messages, not an object"),
            ('[{"role": "user"}]', "message 1 has no 'content'"),
            ("[]", "is an empty list"),
            ("5", "must be a list of messages, not a number"),
        ],
    )
    def test_a_text_of_messages_that_is_none(self, text: str, message: str) -> None:
        with pytest.raises(UserError, match=f"train.jsonl:1: column 'messages'.*{message}"):
            examples(in_jsonl([{"messages": text}]))

    def test_the_text_itself_can_still_be_asked(self) -> None:
        asked = {"messages": [{"role": "user", "content": json.dumps(CHAT)}]}
        assert examples(in_jsonl([asked]))[0].messages[0]["content"] == json.dumps(CHAT)

    def test_other_columns_may_hold_one(self) -> None:
        (found,) = examples(in_jsonl([{"prompt": "p", "answer": json.dumps(CHAT), "source": json.dumps(CHAT)}]))
        assert (found.reference, found.extra) == (json.dumps(CHAT), {"source": json.dumps(CHAT)})

    @pytest.mark.parametrize("column", ["prompt", "chosen", "rejected"])
    def test_in_preference_pairs(self, column: str) -> None:
        row = {"prompt": "q", "chosen": "a", "rejected": "b", column: json.dumps(CHAT)}
        with pytest.raises(BadRow, match=f"column '{column}' holds a chat written as text"):
            read_pair(Row(place="f:1", number=1, value=row))


def chats() -> dict[str, str]:
    """An evaluation split whose questions are chats in ``prompt``."""
    Path("chats.jsonl").write_text(json.dumps({"prompt": CHAT}) + "\n")
    return {"test": "chats.jsonl"}


COLUMNS: dict[str, list[Any]] = {
    "asked": [datetime.datetime(2031, 2, 5, 6, 7), None],
    "price": [Decimal("1.10"), None],
    "blob": [b"\x00\xff", None],
    "share": [float("nan"), float("inf")],
    "took": [datetime.timedelta(seconds=90), None],
    "nested": [{"days": [datetime.date(2031, 2, 5)]}, None],
}
FORMS: dict[str, list[Any]] = {
    "asked": ["2031-02-05T06:07:00", None],
    "price": ["1.10", None],
    "blob": ["AP8=", None],
    "share": [None, "Infinity"],
    "took": [90.0, None],
    "nested": [{"days": ["2031-02-05"]}, None],
}


@pytest.fixture
def strict_server() -> Iterator[tuple[str, list[Any]]]:
    """A server that scores 1 whatever is JSON in the strict sense, and what it was sent."""
    seen: list[Any] = []

    def refuse(word: str) -> None:
        raise ValueError(word)

    class Scorer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(json.loads(body, parse_constant=refuse)["samples"][0])
            answer = b'{"scores": [1.0]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Scorer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/score", seen
    server.shutdown()
    server.server_close()
    thread.join()


class TestFurtherColumns:
    """Columns that JSON has no form for."""

    @pytest.mark.parametrize("name", COLUMNS)
    @pytest.mark.parametrize("write", [in_parquet, in_arrow])
    def test_form(self, write: Writer, name: str) -> None:
        rows = [{"prompt": f"p{n}", name: value} for n, value in enumerate(COLUMNS[name])]
        assert [example.extra[name] for example in examples(write(rows))] == FORMS[name]

    def test_numbers_that_json_has_no_word_for_in_jsonl(self) -> None:
        Path("train.jsonl").write_text('{"prompt": "a", "x": [NaN, -Infinity, 1e999]}\n')
        assert examples("train.jsonl")[0].extra == {"x": [None, "-Infinity", "Infinity"]}

    async def test_they_reach_a_server(self, strict_server: tuple[str, list[Any]], tiny_model: Path) -> None:
        url, seen = strict_server
        rows = [{"prompt": f"p{n}", **{name: values[n] for name, values in COLUMNS.items()}} for n in range(2)]
        prompts = render(load_tokenizer(str(tiny_model)), examples(in_parquet(rows)), "dataset")
        reward = Remote(Remote.Config(url=url))
        for prompt in prompts:
            trajectory = Trajectory(
                prompt_id=prompt.prompt_id,
                sample_index=0,
                token_ids=(1, 2),
                action_mask=(False, True),
                rollout_logprobs=(0.0, -1.0),
                response_text="=5",
                finish_reason=FinishReason.STOP,
                policy_version_min=0,
                policy_version_max=0,
            )
            assert await reward(prompt, trajectory) == 1.0
        await reward.close()
        assert [sample["extra"] for sample in seen] == [{n: v[i] for n, v in FORMS.items()} for i in range(2)]

    def test_a_value_that_python_cannot_hold_is_named_with_its_column(self) -> None:
        when = pyarrow.array([0, 2**60], pyarrow.timestamp("ms"))
        parquet.write_table(pyarrow.table({"prompt": ["a", "b"], "n": [1, 2], "when": when}), "train.parquet")
        with pytest.raises(UserError, match="row 2: a value that Python cannot hold: column 'when': "):
            examples("train.parquet")

    def test_a_column_nested_too_deep_is_a_bad_row(self) -> None:
        Path("train.jsonl").write_text('{"prompt": "a", "deep": ' + "[" * 700 + "]" * 700 + "}\n")
        with pytest.raises(UserError, match=r"train.jsonl:1: column 'deep' is nested too deep; convert it, or leave"):
            examples("train.jsonl")
