"""Wiring: stages, recipes, command line and report."""
