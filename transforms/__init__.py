"""Data-parallel steps over Arrow batches: pure batch functions and their PTransforms."""
