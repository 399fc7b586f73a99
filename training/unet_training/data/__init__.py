"""Datasets: read, prepared, augmented, drawn."""
