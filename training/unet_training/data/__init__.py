"""Photos and label masks -> batches for training."""
