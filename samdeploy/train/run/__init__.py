"""The run directory while it is written: provenance, files, how a training ends."""
