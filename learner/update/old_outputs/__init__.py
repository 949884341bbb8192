"""What the models say before an update, put together from micro-batches."""
