"""A trajectory becomes a reward record."""
