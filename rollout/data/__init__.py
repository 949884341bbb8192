"""Prompts and preference pairs, from a user's files to token ids."""
