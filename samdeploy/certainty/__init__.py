"""How sure a classifier may be of its answers: probabilities against their truth, and exact bounds of rates."""
