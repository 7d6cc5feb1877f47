"""Embedders, one a file; `load.embedder` makes the one that a recipe names."""
