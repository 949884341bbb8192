"""Models with their optimisers, behind one protocol. DeepSpeed is known here only."""
