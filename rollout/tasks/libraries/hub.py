"""Data sets by name, loaded by the library ``datasets``: from the hub, or from a folder that it can read."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from rollout.component.mistakes import ForeignData, NoRows, PackageMissing

PREFIX = "hub:"
FORM = re.compile(r"hub:(?P<name>[^:@]+)(@(?P<revision>[^:@]+))?(:(?P<subset>[^:]+))?:(?P<split>\w[\w.-]*)")


def hub_files(text: str) -> list[Path]:
    """The Arrow files, in the library's cache, of ``hub:NAME[@REVISION][:SUBSET]:SPLIT``.

    Raises:
        UserError: it does not have that form, the library is not there or cannot load it, or it has no rows.
    """
    found = FORM.fullmatch(text)
    if found is None:
        raise ForeignData(
            f"{text!r}: a data set by name is hub:NAME:SPLIT or hub:NAME:SUBSET:SPLIT, with a version NAME@REVISION; "
            "a split is a name, without a slice"
        )
    if importlib.util.find_spec("datasets") is None:
        raise PackageMissing(f"{text}: needs the package datasets: pip install 'dvpo[datasets]', or the package alone")
    import datasets

    datasets.disable_progress_bars()
    try:
        data = datasets.load_dataset(found["name"], found["subset"], split=found["split"], revision=found["revision"])
    except Exception as error:  # of the network, the hub, the builder, the files
        said = " ".join(str(error).split())[:500]
        raise ForeignData(f"{text}: datasets cannot load it: {type(error).__name__}: {said}") from error
    files = [Path(entry["filename"]) for entry in data.cache_files]
    if not files or not len(data):
        raise NoRows(f"{text}: the data set has no rows")
    return files
