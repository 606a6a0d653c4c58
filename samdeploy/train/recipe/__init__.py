"""Recipes: sections and their limits, where they are read from, overrides."""
