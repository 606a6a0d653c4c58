"""What is seen of a training while it runs: history, curves, gates, head-room, the first layer that is not finite."""
