"""Supervised training of a starting model."""
