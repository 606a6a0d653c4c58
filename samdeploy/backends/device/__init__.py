"""CUDA without a runtime: buffers, streams, graphs, and sessions on device memory."""
