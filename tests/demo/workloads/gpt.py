# SPDX-License-Identifier: GPL-2.0
"""Trains a small GPT on batches of different lengths, as text comes."""

import sys

import torch
from torch import nn
from torch.nn import functional

from mark import mark

VOCABULARY, WIDTH, HEADS, LAYERS, LONGEST, BATCH = 2048, 64, 8, 4, 160, 2
LENGTHS = [128, 96, 160]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before_attention = nn.LayerNorm(WIDTH)
        self.queries_keys_values = nn.Linear(WIDTH, 3 * WIDTH)
        self.attention_out = nn.Linear(WIDTH, WIDTH)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x):
        batch, length, _ = x.shape
        parts = self.queries_keys_values(self.before_attention(x)).split(WIDTH, dim=2)
        query, key, value = (
            part.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2) for part in parts
        )
        scores = query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = functional.softmax(scores.masked_fill(future, float("-inf")), dim=3) @ value
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.feed_forward(x)


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(LONGEST, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.last = nn.LayerNorm(WIDTH)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return self.last(self.blocks(x)) @ self.tokens.weight.t()


def main():
    steps = int(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(1)
    mark("import")
    model = Gpt()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        length = LENGTHS[step % len(LENGTHS)]
        text = torch.randint(VOCABULARY, (BATCH, length + 1))
        logits = model(text[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        del logits
        mark(f"step{step + 1}", f"{loss.item():.6f}")


main()
