"""The training loop, from all epochs down to one step, and what it is fed."""
