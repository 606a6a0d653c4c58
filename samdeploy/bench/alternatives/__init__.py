"""The same network in other tools, for `bench --against`."""
