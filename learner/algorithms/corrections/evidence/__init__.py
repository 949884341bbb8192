"""Evidence: one estimate of the true reward from repeated noisy scores, a value model and a few true labels."""
