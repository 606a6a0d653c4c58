"""INT8 graphs: where Q/DQ nodes go, and the search for ranges and FP32 layers that keep the accuracy."""
