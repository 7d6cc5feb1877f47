"""The nouns: tables, addresses, manifests and recipe configuration."""
