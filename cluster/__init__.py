"""Everything about where and how a run starts."""

__version__ = "0.1.0"
