"""The command unet-export: the only modules that print or exit."""
