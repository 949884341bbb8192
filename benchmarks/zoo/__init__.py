"""Tiny models of many families, and whether the weights of each reach a vLLM engine under the names it knows."""
