"""The parity gate: metrics of every artifact beside the trained model, and the verdict."""
