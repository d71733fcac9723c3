"""Simple statistics of a text."""
