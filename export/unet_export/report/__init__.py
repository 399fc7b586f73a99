"""Results of an export: for the terminal, for machines, for people."""
