"""Emergence: the backend of a small assistant that remembers."""
