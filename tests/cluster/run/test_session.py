"""A private Ray that is slow to start is started once more; one that cannot start is told by its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.config.run_config import RunConfig
from cluster.run import session

SLOW = Exception("The current node timed out during startup. This could happen because some of the raylet failed")


@pytest.mark.parametrize(
    ("failures", "num_tries", "message"),
    [
        ([], 1, None),
        ([SLOW], 2, None),
        ([SLOW, SLOW], 2, "timed out during startup"),
        ([SLOW, OSError("no space left")], 2, "no space left"),
        ([OSError("no space left")], 1, "no space left"),
    ],
)
def test_a_slow_start_is_tried_once_more(
    failures: list[Exception],
    num_tries: int,
    message: str | None,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        tried.append(options)
        if len(tried) <= len(failures):
            raise failures[len(tried) - 1]

    monkeypatch.setattr(ray, "init", init)
    config = RunConfig.model_validate({"model": {"path": str(tiny_model)}, "data": {"task": {"type": "chain"}}})
    if message is None:
        session._start_private(config, tmp_path, 256, None)
    else:
        with pytest.raises(RuntimeError, match=f"Ray did not start on this machine .*{message}"):
            session._start_private(config, tmp_path, 256, None)
    assert len(tried) == num_tries and all(options["_temp_dir"] == str(tmp_path) for options in tried)
