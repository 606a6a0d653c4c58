"""Images that occur more than once: copies within a set, leaks between splits, likeness."""
