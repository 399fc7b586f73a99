"""Video files: read, segmented, written."""
