"""Every command: ``dvpo``, or ``python -m cluster.cli``. Importing it loads nothing heavy."""

from cluster.config.processes.search_path import import_packages

import_packages()  # before anything else, which might find a module of the user's in the place of a package

from cluster.cli.entry import main  # noqa: E402

__all__ = ["main"]
