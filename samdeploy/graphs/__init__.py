"""ONNX graphs of any network: their pixels, shapes, layers and cost.  Knows nodes and tensors, and no architecture."""
