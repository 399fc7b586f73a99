"""Model files that other tools made, given a spec: what a file says of itself is read, the rest is asked for."""
