"""The comparison of expressions as mathematics, and the process in which ``math_verify`` runs it."""
