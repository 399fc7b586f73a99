"""What an export found: for the terminal, for machines, for people."""
