"""Commands: the only modules that print or exit."""
