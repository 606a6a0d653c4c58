"""TensorRT engines: building, timing cache, and the proof of their precision."""
