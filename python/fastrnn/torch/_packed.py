"""PackedSequence to padded sequences and back. Both are one gather, which autograd, `vmap` and tracing know."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Padding(NamedTuple):
    """Where the rows of packed data lie in a padded batch, (T, B), or (B, T) with `batch_first`."""

    packed: Tensor  # for each place of the padded batch the row of the packed data; any row where there is none
    padded: Tensor  # for each row of the packed data its place, counted through the padded batch
    lengths: Tensor  # (B,)
    shape: tuple[int, int]

    @classmethod
    def of(cls, batch_sizes: Tensor, batch_first: bool) -> Padding:
        """For the rows that each step of a PackedSequence has, longest sequences first."""
        steps, rows = len(batch_sizes), int(batch_sizes[0])
        row = torch.arange(rows, device=batch_sizes.device)
        alive = row < batch_sizes.unsqueeze(1)
        first = (batch_sizes.cumsum(0) - batch_sizes).unsqueeze(1)
        place = torch.arange(steps * rows, device=row.device).view(steps, rows)
        packed = torch.where(alive, first + row, 0)
        if batch_first:
            place = place % rows * steps + place // rows
            packed = packed.t()
        return cls(packed.reshape(-1), place[alive], alive.sum(0), (rows, steps) if batch_first else (steps, rows))

    def pad(self, data: Tensor) -> Tensor:
        """(N, width) -> (T, B, width). What lies past a row's length is some row of the data."""
        return data.index_select(0, self.packed.to(data.device)).view(*self.shape, data.shape[1])

    def unpad(self, padded: Tensor) -> Tensor:
        """(T, B, width) -> (N, width)."""
        return padded.flatten(0, 1).index_select(0, self.padded.to(padded.device))
