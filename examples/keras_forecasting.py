"""Forecast the carbon dioxide over Mauna Loa in Keras: next month's, from the months before.

    the last 24 months (B, 24, 1) -> LSTM (B, 50) -> Dropout 0.2 -> Dense (B, 1): next month

The series is the record of 1958 to 2001 in the package `statsmodels`, by weeks, of which months are made here. The
network reads how far each month is from the newest and says how far the next one will be, both in standard deviations
of a month's change: then a level that was never seen before is nothing new to it. It is held against persistence, the
forecast that next month will be as this one, over the last fifth of the time, which it has not learned from. The
program is the same with fastrnn's layer and with Keras'. Try

    python examples/keras_forecasting.py
    python examples/keras_forecasting.py --backend stock
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")  # tensorflow and jax do as well

import numpy as np

try:
    import keras
    from keras import layers
except ModuleNotFoundError as error:
    sys.exit(f"keras_forecasting: {error.name} is not installed: pip install keras {os.environ['KERAS_BACKEND']}")

import fastrnn.keras

BACKENDS = {"fastrnn": fastrnn.keras.LSTM, "stock": layers.LSTM}


class UserError(Exception):
    """Something the user can mend; its message is all they need to see."""


# --- the series ------------------------------------------------------------------------------------------------------


def read_series() -> Any:
    """Parts per million, a pandas.Series by month; months without a measurement are on the line between others."""
    try:
        from statsmodels.datasets import co2
    except ModuleNotFoundError:
        raise UserError("the series is in the package 'statsmodels': pip install statsmodels") from None
    return co2.load_pandas().data["co2"].resample("MS").mean().interpolate()


def windows(values: np.ndarray, months: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All stretches of `months` months, (N, months, 1), as distances from their last; that last one, (N,); and how far
    the month behind each is from it, (N,)."""
    every = np.lib.stride_tricks.sliding_window_view(values, months + 1)
    newest = every[:, -2]
    return (every[:, :-1] - newest[:, None])[..., None], newest, every[:, -1] - newest


# --- the network -----------------------------------------------------------------------------------------------------


def make_model(backend: str, months: int) -> keras.Sequential:
    return keras.Sequential(
        [keras.Input((months, 1)), BACKENDS[backend](50), layers.Dropout(0.2), layers.Dense(1)],
    )


def rmse(forecast: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((forecast - truth) ** 2)))


# --- what came of it -------------------------------------------------------------------------------------------------


def draw(path: Path, history: dict, dates: Any, truth: np.ndarray, forecast: np.ndarray, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(1, 2), layout="constrained")
    left.plot(history["loss"], label="in training (with dropout)")
    left.plot(history["val_loss"], label="validation")
    left.set(title=title, xlabel="epoch", ylabel="mean squared error", yscale="log")
    left.legend()
    right.plot(dates, truth, "o", markersize=3, label="measured")
    right.plot(dates, forecast, label="forecast of a month before")
    right.set(title="Time not seen in training", ylabel="CO₂ over Mauna Loa, ppm")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# --- the program -----------------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Forecast the carbon dioxide over Mauna Loa.")
    add = parser.add_argument
    add("--backend", choices=BACKENDS, default="fastrnn", help="whose recurrent layer (%(default)s)")
    add("--epochs", type=positive, default=60, help="times that all months are read (%(default)s)")
    add("--months", type=positive, default=24, help="months that a forecast looks back (%(default)s)")
    add("--batch", type=positive, default=16, help="windows that are read side by side (%(default)s)")
    add("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    add("--picture", type=Path, default=Path("keras_forecasting.png"), metavar="FILE", help="its file (%(default)s)")
    options = parser.parse_args(arguments)
    if options.months > 120:
        parser.error(f"--months must be 120 at most, got {options.months}")
    return options


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    try:
        keras.utils.set_random_seed(options.seed)
        series = read_series()
        x, newest, change = windows(series.to_numpy(), options.months)
        cut = len(x) * 4 // 5
        scale = change[:cut].std()
        print(f"{len(series)} months; {cut} forecasts to learn, {len(x) - cut} held out")

        model = make_model(options.backend, options.months)
        model.compile("adam", "mse")
        x, targets = (x / scale).astype("float32"), (change / scale).astype("float32")
        history = model.fit(
            x[:cut], targets[:cut], batch_size=options.batch, epochs=options.epochs, validation_split=0.2
        ).history

        truth = (newest + change)[cut:]
        forecast = newest[cut:] + scale * np.asarray(model.predict(x[cut:], verbose=0))[:, 0]
        print(
            f"root mean squared error on time not seen in training: {rmse(forecast, truth):.2f} ppm "
            f"(persistence: {rmse(newest[cut:], truth):.2f} ppm)"
        )
        dates = series.index[options.months + cut :]
        try:
            draw(options.picture, history, dates, truth, forecast, f"LSTM, {options.backend}")
            print(f"picture saved in {options.picture}")
        except ImportError:
            print("no picture: matplotlib is not installed")
    except UserError as error:
        sys.exit(f"keras_forecasting: {error}")
    except KeyboardInterrupt:
        sys.exit("\nkeras_forecasting: stopped")


if __name__ == "__main__":
    main()
