"""Ways to lay documents into training sequences: one layout a file."""
