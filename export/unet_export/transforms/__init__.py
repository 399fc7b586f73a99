"""Changes to a Keras graph that leave its function the same, or train it to survive rounding."""
