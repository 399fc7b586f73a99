"""The live view: a camera's frames in, the newest one with its mask out."""
