"""Guards: what must not become a training row."""
