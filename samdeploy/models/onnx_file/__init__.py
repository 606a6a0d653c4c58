"""Networks that came as ONNX files: the file itself is the network, and ONNX Runtime its reference."""
