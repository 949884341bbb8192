"""What is written down during a run: events, metrics, status, trajectories."""
