"""``dvpo audit``: how far a reward can be trusted, from labelled responses."""
