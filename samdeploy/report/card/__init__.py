"""A bundle's model card (Markdown, as Hugging Face reads it) and its bill of materials (CycloneDX)."""
