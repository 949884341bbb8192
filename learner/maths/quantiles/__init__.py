"""Quantile functions: levels, means, order, regression, read-outs, worst cases."""
