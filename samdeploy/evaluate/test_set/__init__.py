"""The test images that a bundle is judged on: opening, copies, and what was seen in training."""
