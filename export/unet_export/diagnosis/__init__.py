"""Diagnosis of the differences between an integer artifact and its float32 counterpart."""
