"""Recipes: one way of making rows, one file each."""
