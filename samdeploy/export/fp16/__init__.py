"""FP16 graphs: measured ranges, and the plan of what stays in FP32."""
