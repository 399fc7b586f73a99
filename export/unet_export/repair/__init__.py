"""Cures for integer artifacts that lose too much."""
