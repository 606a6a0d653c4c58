"""What is measured before the first step: precision, compilation, the batch that fits."""
