"""Compiled forms of the quantile losses."""
