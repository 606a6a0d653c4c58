"""An engine against itself: batch sizes, threads, ownership of answers, and synthetic images."""
