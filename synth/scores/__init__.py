"""Scores: how good an output is."""
