"""Models that unet-train did not make: read from their files, and brought under the contract of this project's own."""
