"""The page about runs: what goes into it, and how it is put together."""
