"""Inputs and outputs: photos and videos found and read, results written."""
