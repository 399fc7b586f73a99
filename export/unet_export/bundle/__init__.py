"""What a device without a network needs, in one archive."""
