"""One archive with everything that a device without a network needs."""
