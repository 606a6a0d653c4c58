"""`eval --why`: the first tensor at which an engine departs from the trained network, and the likely cause."""
