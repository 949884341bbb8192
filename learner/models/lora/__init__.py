"""Low-rank adapters (LoRA, arXiv:2106.09685) that are trained in place of whole weights."""
