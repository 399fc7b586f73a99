"""Why an integer artifact differs from its float twin."""
