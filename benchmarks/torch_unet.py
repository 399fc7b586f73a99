"""A PyTorch U-Net, trained and exported as its users do: what ``unet-export adopt`` is proven with.

    python -m venv torch-venv && torch-venv/bin/pip install torch onnx onnxscript numpy pillow
    PYTHONPATH=. torch-venv/bin/python benchmarks/torch_unet.py tests/data

Writes ``torch-unet.onnx`` (NCHW, pictures normalised by ImageNet's mean and std outside of it, logits out) and
``torch-unet.npz``: photos, uint8 NHWC RGB, and the logits that PyTorch itself gives for them. Needs no package of
this project; tests/helpers/discs.py draws the pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.helpers.discs import CLASSES, SIDE, draw

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILTERS = (8, 16, 24)
BATCH = 16


class Double(nn.Sequential):
    """Twice a 3x3 convolution with BatchNormalization and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for count in (inputs, outputs):
            layers += [nn.Conv2d(count, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers)


class UNet(nn.Module):
    """Three levels; enlarged by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = FILTERS
        self.down1, self.down2, self.bottom = Double(3, first), Double(first, second), Double(second, third)
        self.pool = nn.MaxPool2d(2)
        self.up2, self.up1 = nn.ConvTranspose2d(third, second, 2, 2), nn.ConvTranspose2d(second, first, 2, 2)
        self.left2, self.left1 = Double(2 * second, second), Double(2 * first, first)
        self.head = nn.Conv2d(first, len(CLASSES), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (n, 3, h, w) -> (n, classes, h, w)
        skip1 = self.down1(x)
        skip2 = self.down2(self.pool(skip1))
        x = self.up2(self.bottom(self.pool(skip2)))
        x = self.up1(self.left2(torch.cat([skip2, x], 1)))
        return self.head(self.left1(torch.cat([skip1, x], 1)))


def normalised(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) RGB -> (n, 3, h, w), as torchvision's ToTensor and Normalize make it."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def trained(steps: int) -> UNet:
    """The network after ``steps`` batches of drawn pictures."""
    torch.manual_seed(0)
    model = UNet()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(steps):
        drawn = [draw(10_000 + step * BATCH + index) for index in range(BATCH)]
        pictures, labels = (np.stack(part) for part in zip(*drawn, strict=True))
        loss = nn.functional.cross_entropy(model(normalised(pictures)), torch.from_numpy(labels).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = trained(options.steps)
    path = options.folder / "torch-unet.onnx"
    axes = {"x": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, SIDE, SIDE),),
        str(path),
        input_names=["x"],
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    pictures = np.stack([draw(index)[0] for index in range(2)])
    with torch.no_grad():
        logits = model(normalised(pictures)).numpy()
    np.savez_compressed(options.folder / "torch-unet.npz", inputs=pictures, outputs=logits)
    print(f"torch {torch.__version__}: {path}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
