"""The side of the critic, in pieces: read-outs, targets, terms of its loss, regularisers, and what composes them."""
