"""Pure functions of tensors: no processes, no files, no configuration."""
