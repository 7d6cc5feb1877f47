"""The stages of the corpus walk: one stage a file."""
