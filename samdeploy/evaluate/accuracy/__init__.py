"""An engine's accuracy beside the trained network's, and the verdict on it."""
