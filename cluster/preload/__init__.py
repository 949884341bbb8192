"""Worker processes in a second instead of ten: they are forked from one that has loaded vLLM, DeepSpeed and torch."""
