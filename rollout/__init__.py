"""Prompts in, scored trajectories out."""
