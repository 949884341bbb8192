"""Thin Ray-hosted shells: each owns one resource and forwards calls to it."""
