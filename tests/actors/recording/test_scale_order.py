"""What was told by hand is read by the run; a file that is no order is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.recording.scale_order import NAME, read_order, write_order


def test_an_order_counts_until_it_is_taken_back(tmp_path: Path) -> None:
    assert read_order(tmp_path) is None
    for number in (3, 1, 4096):
        write_order(tmp_path, number)
        assert read_order(tmp_path) == number
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    write_order(tmp_path, None)
    write_order(tmp_path, None)
    assert read_order(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "3", "[]", '{"rollouts": 0}', '{"rollouts": "3"}', '{"rollouts": null}'])
def test_what_is_no_order_changes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    assert read_order(tmp_path) is None


def test_a_folder_that_cannot_be_written_is_an_error_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_order(tmp_path / "none", 3)
    (tmp_path / NAME).mkdir()
    with pytest.raises(OSError):
        write_order(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
