"""Grids of runs: algorithm x task x noise x seed, one cell after the other in processes that stay up."""
