"""PyTorch on one repeated batch: python tests/helpers/torch_baseline.py MODEL BATCH SIZE PRECISION STEPS DEVICE

The same layers as ``models``, SGD with momentum, channels last, autocast for 16 bits; prints images per second.
"""

import sys
import time

import torch
from torch import nn

# (filters, kernel, stride, padding), or "M" for a pooling of 3x3 with stride 2, "P" of 2x2.
ALEXNET = ((96, 11, 4, 0), "M", (256, 5, 1, 2), "M", (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1), "M")
SMALL = ((24, 5, 1, 2), "P", (64, 3, 1, 1), "P", (128, 3, 1, 1), (64, 3, 1, 1), "P", (64, 3, 1, 1), "P")
VGG16 = tuple(
    layer
    for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    for layer in (*[(filters, 3, 1, 1)] * count, "P")
)
NETWORKS = {"alexnet": ALEXNET, "alexnet_cifar": SMALL, "vgg16": VGG16}


def network(name: str, classes: int) -> nn.Module:
    layers, channels = [], 3
    for layer in NETWORKS[name]:
        if isinstance(layer, str):
            layers.append(nn.MaxPool2d(3 if layer == "M" else 2, 2))
        else:
            filters, kernel, stride, padding = layer
            layers += [nn.Conv2d(channels, filters, kernel, stride, padding), nn.ReLU(inplace=True)]
            channels = filters
    layers.append(nn.Flatten())
    for _ in range(2):
        layers += [nn.LazyLinear(4096), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.LazyLinear(classes))


def main(name: str, batch: int, size: int, precision: str, steps: int, device: str) -> None:
    images = torch.rand(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % 10
    model = network(name, 1000 if size > 32 else 10).to(device)
    model(images[:1])  # lazy layers learn their sizes
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    dtype = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    scaler = torch.cuda.amp.GradScaler(enabled=precision == "float16" and device == "cuda")

    def step():
        with torch.autocast(device, dtype, enabled=dtype is not None):
            loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    for _ in range(3):
        step().item()
    began = time.perf_counter()
    for _ in range(steps):
        loss = step()
    loss.item()
    print(batch * steps / (time.perf_counter() - began))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), sys.argv[6])
