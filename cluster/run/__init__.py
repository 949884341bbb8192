"""Starts a run: session, placement, workers, controller; supervises it and ends it."""
