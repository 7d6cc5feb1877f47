"""Prompts: where writing tasks come from, and what they ask for."""
