"""``dvpo warmstart``: a small starting model, supervised on worked examples."""
