"""Methods whose baseline is a prompt's group or the batch."""
