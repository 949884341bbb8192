"""What a checkpoint holds: written by every rank, read by any number of them."""
