"""Losses as pure functions: tensors in, one value per token (or per token and head) out."""
