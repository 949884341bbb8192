"""``dvpo init``: a commented project to begin with."""
