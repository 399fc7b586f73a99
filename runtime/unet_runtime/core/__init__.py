"""The bottom floor: what every other part uses. NumPy, Pillow and the standard library alone."""
