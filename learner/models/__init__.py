"""The networks that are trained: a causal language model, and a critic with quantile heads."""
