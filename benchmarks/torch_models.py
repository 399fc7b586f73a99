"""Segmentation networks of PyTorch's usual packages, exported as their users do, with what PyTorch gives for them.

    python -m venv torch-venv
    torch-venv/bin/pip install torch torchvision onnx onnxscript segmentation-models-pytorch
    torch-venv/bin/python benchmarks/torch_models.py exported
    python benchmarks/adopted.py exported

Weights are random: what is tried is whether a file is understood and computed alike, not what it knows. Needs no
package of this project.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torchvision
from torch import nn

SIDE = 192
"""Pixels: the pyramids of PSPNet and UPerNet divide it."""
CLASSES = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

SMP = {
    "Unet": "resnet18",
    "UnetPlusPlus": "resnet18",
    "MAnet": "resnet18",
    "Linknet": "mobilenet_v2",
    "FPN": "efficientnet-b0",
    "PSPNet": "resnet18",
    "PAN": "resnet18",
    "DeepLabV3": "mobilenet_v2",
    "DeepLabV3Plus": "mobilenet_v2",
    "UPerNet": "resnet18",
    "Segformer": "mit_b0",
}
"""Architecture of segmentation_models_pytorch -> encoder."""


class First(nn.Module):
    """The map of a torchvision model, which gives a dictionary."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)["out"]


class Labels(nn.Module):
    """Class ids of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x).argmax(1)


def models() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """(name, how it is built); ``-mask`` has one channel, ``-labels`` the argmax inside, ``-sigmoid`` a sigmoid."""
    settings = {"encoder_weights": None, "classes": CLASSES}
    for name, encoder in SMP.items():
        yield f"smp-{name}-{encoder}", lambda name=name, encoder=encoder: getattr(smp, name)(encoder, **settings)
    yield "smp-Unet-mask", lambda: smp.Unet("resnet18", encoder_weights=None, classes=1)
    yield "smp-Unet-sigmoid", lambda: smp.Unet("resnet18", activation="sigmoid", **settings)
    yield "smp-Unet-softmax", lambda: smp.Unet("resnet18", activation="softmax2d", **settings)
    yield "smp-Unet-labels", lambda: Labels(smp.Unet("resnet18", **settings))
    yield "smp-Unet-grey", lambda: smp.Unet("resnet18", in_channels=1, **settings)
    for name in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50"):
        build = getattr(torchvision.models.segmentation, name)
        yield (
            f"torchvision-{name}",
            lambda build=build: First(build(weights=None, weights_backbone=None, num_classes=CLASSES)),
        )


def fixed(model: nn.Module) -> nn.Module:
    """Random statistics in every BatchNormalization: those of a new network would hide a wrong fusion."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pictures = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    for name, build in models():
        torch.manual_seed(0)
        model = fixed(build())
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        if name.endswith("grey"):
            x = (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
        else:
            x = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
        torch.onnx.export(
            model,
            (x,),
            str(options.folder / f"{name}.onnx"),
            input_names=["x"],
            output_names=["y"],
            opset_version=17,
            dynamo=False,
        )
        with torch.no_grad():
            y = model(x).numpy()
        np.savez_compressed(options.folder / f"{name}.npz", inputs=x.numpy(), outputs=y)
        print(f"{name}: {y.shape}", flush=True)


if __name__ == "__main__":
    main()
