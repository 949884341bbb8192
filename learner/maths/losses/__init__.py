"""Losses of policy and critic, per token."""
