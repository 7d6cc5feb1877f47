"""Engines: what a request is sent to, one file each."""
