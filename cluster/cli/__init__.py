"""Every command: ``dvpo``, or ``python -m cluster.cli``. Importing it loads nothing heavy."""

from cluster.cli.entry import main

__all__ = ["main"]
