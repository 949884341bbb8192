"""How a reward errs, from repeated scores of the same answers and whatever true labels there are.

A *cell* is one answer to one prompt; all responses of a cell have one true reward. Everything here is numpy in float64
and a pure function of its arguments. The formulas are our derivation.
"""
