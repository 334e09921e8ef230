"""The cell of the textbook's name classifier is an RNN: the same numbers from the same weights, in one call.

The classic program writes its cell by hand: a letter x and the hidden state h, side by side, go through one linear
layer to the next hidden state and through another to the categories, letter by letter. There are two variants of it:

    tanh     h' = tanh(i2h [x, h])    output = i2o h'        RNN(nonlinearity="tanh") of as many units. The columns of
                                                             i2h are weight_ih and weight_hh, its bias is bias_ih, and
                                                             bias_hh is 0; i2o reads the RNN's y
    linear   h' = i2h [x, h]          output = i2o [x, h]    no RNN of as many units, whatever its nonlinearity: it is
                                                             a linear function of the letters. But with relu(p) -
                                                             relu(-p) = p it is RNN(nonlinearity="relu") of twice as
                                                             many, in pairs; i2o reads x and the y of the step before

This program takes a cell of either kind through the names of `torch_names.py`, which stands beside it, and does the
same with `fastrnn.torch.RNN`. It prints how far apart the results are, and how long both take. Try

    python examples/torch_textbook.py
    python examples/torch_textbook.py --variant linear --dtype float64
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import fastrnn.torch
from torch_names import CATEGORIES, LETTERS, UserError, positive, read_names


class TextbookCell(nn.Module):
    """One letter: what textbooks write."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int, variant: str) -> None:
        super().__init__()
        self.variant = variant
        self.i2h = nn.Linear(input_size + hidden_size, hidden_size)
        self.i2o = nn.Linear(hidden_size if variant == "tanh" else input_size + hidden_size, output_size)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The logarithms of the categories' probabilities, (B, O), and the next state, from x (B, I) and h (B, H)."""
        both = torch.cat((x, h), -1)
        if self.variant == "tanh":
            h = self.i2h(both).tanh()
            output = self.i2o(h)
        else:
            h = self.i2h(both)
            output = self.i2o(both)
        return output.log_softmax(-1), h


class SameInOneCall(nn.Module):
    """A cell's RNN: all letters of all names at once."""

    def __init__(self, cell: TextbookCell) -> None:
        super().__init__()
        weight, bias = cell.i2h.weight.detach(), cell.i2h.bias.detach()
        hidden_size = len(bias)
        w_x, w_h = weight.split((weight.shape[1] - hidden_size, hidden_size), 1)
        nonlinearity = "tanh"
        if cell.variant == "linear":  # h is u - v, where u = relu(p) and v = relu(-p)
            w_x, bias, nonlinearity = torch.cat((w_x, -w_x)), torch.cat((bias, -bias)), "relu"
            w_h = torch.cat((torch.cat((w_h, -w_h), 1), torch.cat((-w_h, w_h), 1)))
        self.recurrent = fastrnn.torch.RNN(w_x.shape[1], len(bias), nonlinearity=nonlinearity, dtype=weight.dtype)
        parameters = {
            "weight_ih_l0": w_x,
            "weight_hh_l0": w_h,
            "bias_ih_l0": bias,
            "bias_hh_l0": torch.zeros_like(bias),
        }
        self.recurrent.load_state_dict(parameters)
        self.i2o, self.variant = cell.i2o, cell.variant

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The logarithms of the categories' probabilities after each letter, (T, B, O), and the last state, (B, H)."""
        y, h_n = self.recurrent(x, lengths=lengths)
        if self.variant == "tanh":
            return self.i2o(y).log_softmax(-1), h_n[0]
        h, last = (u - v for u, v in (a.chunk(2, -1) for a in (y, h_n[0])))
        before = torch.cat((torch.zeros_like(h[:1]), h[:-1]))
        return self.i2o(torch.cat((x, before), -1)).log_softmax(-1), last


def encode(name: str) -> Tensor:
    """A name's letters, (T, 26), each one number 1."""
    return nn.functional.one_hot(torch.tensor([LETTERS.index(c) for c in name]), len(LETTERS)).to(
        torch.get_default_dtype()
    )


def letter_by_letter(cell: TextbookCell, names: list[Tensor]) -> Tensor:
    """What the cell says of each name after its last letter, (names, O)."""
    answers = []
    for letters in names:
        h = letters.new_zeros(1, cell.i2h.out_features)
        for x in letters:
            output, h = cell(x[None], h)
        answers.append(output)
    return torch.cat(answers)


def in_one_call(model: SameInOneCall, names: list[Tensor]) -> Tensor:
    """The same."""
    lengths = torch.tensor([len(letters) for letters in names])
    log_odds, _ = model(pad_sequence(names), lengths)
    return log_odds[lengths - 1, torch.arange(len(names))]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare the textbook's cell for names with fastrnn's RNN.")
    parser.add_argument("--variant", choices=("tanh", "linear"), default="tanh", help="of the cell (%(default)s)")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="of all numbers (%(default)s)"
    )
    parser.add_argument("--hidden", type=positive, default=128, help="hidden units (%(default)s)")
    parser.add_argument("--most", type=positive, default=500, help="names of each category (%(default)s)")
    options = parser.parse_args(arguments)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, options.dtype))
    try:
        torch.manual_seed(0)
        names = [encode(name) for chosen in read_names(options.most).values() for name in chosen]
        cell = TextbookCell(len(LETTERS), options.hidden, len(CATEGORIES), options.variant)
        answers, times = [], []
        with torch.inference_mode():
            for way, model in ((letter_by_letter, cell), (in_one_call, SameInOneCall(cell))):
                taken = []
                for _ in range(3):
                    start = time.perf_counter()
                    answer = way(model, names)
                    taken.append(time.perf_counter() - start)
                answers.append(answer)
                times.append(min(taken))
    except UserError as error:
        sys.exit(f"torch_textbook: {error}")
    finally:
        torch.set_default_dtype(before)
    textbook, ours = answers
    print(f"{len(names):,} names, the cell with {options.variant}, {options.dtype}")
    print(f"largest difference of a log-probability: {(textbook - ours).abs().max():.1e}")
    print(f"letter by letter {times[0]:.2f} s, in one call {times[1]:.4f} s")


if __name__ == "__main__":
    main()
