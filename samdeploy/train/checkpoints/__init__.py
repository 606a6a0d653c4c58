"""What a checkpoint holds, when it is written, and how a training goes on from it."""
