"""The command unet-train: the only modules that print or exit."""
