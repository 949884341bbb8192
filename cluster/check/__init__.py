"""``dvpo check`` and ``dvpo doctor``: what would go wrong, before anything starts."""
