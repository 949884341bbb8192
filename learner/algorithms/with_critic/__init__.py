"""Methods with a critic: defaults and pieces of each."""
