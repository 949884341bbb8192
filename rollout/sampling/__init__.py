"""The engine that samples, and the weights that it samples from."""
