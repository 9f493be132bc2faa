"""Sizes of first tiers whose training step is compiled for a GPU."""

from typing import NamedTuple


class Size(NamedTuple):
    layers: int
    hidden: int
    batch: int
    frames: int
    bands: int
    recompute: bool = False


SIZES = {
    "reference": Size(layers=4, hidden=64, batch=16, frames=50, bands=32),
    "large": Size(layers=8, hidden=512, batch=16, frames=64, bands=64),
    "large-recompute": Size(layers=8, hidden=512, batch=16, frames=64, bands=64, recompute=True),
}
