"""The loop: admit prompts, gather scored groups, train, publish weights, evaluate."""
