"""Train a U-Net on photos with trimaps, into one ``model.keras`` that carries its spec."""

__version__ = "0.1.0"
