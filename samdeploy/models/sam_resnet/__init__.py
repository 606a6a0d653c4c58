"""SAM-ResNet: a ResNet with streamlined attention, its exact fold and its ONNX graph."""
