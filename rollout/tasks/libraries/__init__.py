"""Of other libraries (datasets, reasoning-gym, verifiers): questions and what scores them. Loaded when named."""
