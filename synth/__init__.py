"""What asks a model."""
