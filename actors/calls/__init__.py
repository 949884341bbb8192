"""Small calls of an actor in batches: what one call costs in Ray is shared by all that are on their way together."""
