"""Run directories: their record, and finding runs and bundles."""
