# SPDX-License-Identifier: GPL-2.0
"""Trains a small U-Net (Ronneberger, Fischer and Brox, 2015) on images of different sizes."""

import sys

import torch
from torch import nn
from torch.nn import functional

from mark import mark

CHANNELS, LEVELS, BATCH = 8, 4, 2
SIZES = [160, 128, 176, 144]


def convolutions(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [CHANNELS << level for level in range(LEVELS)]
        self.down = nn.ModuleList(
            convolutions(inputs, outputs) for inputs, outputs in zip([1] + widths, widths)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in reversed(widths[:-1])
        )
        self.merge = nn.ModuleList(
            convolutions(2 * width, width) for width in reversed(widths[:-1])
        )
        self.last = nn.Conv2d(CHANNELS, 1, 1)

    def forward(self, x):
        kept = []
        for level, down in enumerate(self.down):
            x = down(functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for up, merge in zip(self.up, self.merge):
            x = merge(torch.cat([up(x), kept.pop()], dim=1))
        return self.last(x)


def main():
    steps = int(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(1)
    mark("import")
    model = Unet()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        size = SIZES[step % len(SIZES)]
        image = torch.rand(BATCH, 1, size, size)
        target = (image > 0.5).float()
        loss = functional.binary_cross_entropy_with_logits(model(image), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mark(f"step{step + 1}", f"{loss.item():.6f}")


main()
