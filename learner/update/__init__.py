"""One update over a global batch, on every rank."""
