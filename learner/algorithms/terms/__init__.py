"""Summands of a critic's loss."""
