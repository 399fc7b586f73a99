"""Dataset layouts on disk: one module for each."""
