"""Keys of a configuration that are called otherwise now: the former name keeps working, with the same effect."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.config.yaml_source import ConfigSource

RENAMED = {"reward.recheck_share": "reward.gold_share"}
"""Former key -> key. What a run writes down has the new one only."""


def rename_keys(source: ConfigSource, renamed: Mapping[str, str] = RENAMED) -> None:
    """Give every key of ``source`` its present name; places in messages stay those where the user wrote it.

    Raises:
        UserError: a key is given under both names.
    """
    for former, key in renamed.items():
        source.rename(tuple(former.split(".")), tuple(key.split(".")))
