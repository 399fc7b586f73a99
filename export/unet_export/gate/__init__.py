"""Whether an artifact is equal enough: what is measured of it, and the verdict."""
