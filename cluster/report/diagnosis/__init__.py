"""What looks wrong in a run, as named causes with their evidence."""
