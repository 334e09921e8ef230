"""What runs in other processes: python torch_processes.py KIND FOLDER RANK trains there, in two processes at once."""

import os
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

import fastrnn
import fastrnn.torch


def run_and_halve(layer, x, y, gradients):
    """A module whose parameters another process shares: its output and its gradients into that process's tensors; then
    the parameters become half of what they were."""
    output = layer(x)[0]
    found = torch.autograd.grad(output.square().sum(), list(layer.parameters()))
    with torch.no_grad():
        for shared, value in zip((y, *gradients), (output, *found), strict=True):
            shared.copy_(value)
        for p in layer.parameters():
            p.mul_(0.5)


class Classifier(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = getattr(torch.nn, kind)(6, 16, 2)
        self.head = torch.nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][-1])


def train(model, rank, steps=15):
    """Losses of data-parallel training, each process on data of its own."""
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(parallel.parameters(), 0.02)
    generator = torch.Generator().manual_seed(rank)
    x, target = torch.randn(9, 8, 6, generator=generator), torch.randint(3, (8,), generator=generator)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(parallel(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def main(kind, folder, rank):
    folder, rank = Path(folder), int(rank)
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    stock = Classifier(kind)
    ours = Classifier(kind)
    ours.load_state_dict(stock.state_dict())
    fastrnn.torch.replace_(ours)
    results = {"stock": train(stock, rank), "fastrnn": train(ours, rank), "calls": fastrnn.native_calls()}
    torch.save(results | {"weights": ours.state_dict()}, folder / f"{rank}.pt")
    # Not through the interpreter's end, where PyTorch may hang or abort: a thread of gloo may still have
    # a Python object to let go of (github.com/pytorch/pytorch/pull/179291).
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
