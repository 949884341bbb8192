"""``dvpo reward-model``: pairs, training and use of reward models."""
