"""Which part of which recording is for training, validation and test.

A recording is cut into blocks of whole slices, and each block has a place in [0, 1) that depends on nothing but the
recording's relative path and the block's number. The splits are intervals of that range, so they stay as they are when
recordings are added or removed.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stages.parameters import Slice

SPLITS = ("train", "valid", "test")
GOLDEN_RATIO = (5**0.5 - 1) / 2
FEWEST_BLOCKS = 3  # one for each split
ENOUGH_BLOCKS = 10


class Block(NamedTuple):
    """The slices [first, last) of a recording, which go to one split together."""

    recording: str
    number: int
    first: int
    last: int


def slices_per_block(settings: Slice, sample_rate: int, hop_length: int) -> int:
    """Whole slices in the block nearest to ``block_seconds``; at least one."""
    return max(1, round(settings.block_seconds * sample_rate / hop_length / settings.frames))


def fitting_block(slices: Iterable[int], per_block: int) -> int:
    """Slices per block for recordings of so many slices: ``per_block``, less if that leaves a split without a block.

    Where recordings make fewer than three blocks, blocks are halved until there are ten, or one for each slice.
    """
    counts = list(slices)

    def blocks(size: int) -> int:
        return sum(-(-count // size) for count in counts)

    if blocks(per_block) < FEWEST_BLOCKS:
        while per_block > 1 and blocks(per_block) < ENOUGH_BLOCKS:
            per_block //= 2
    return per_block


def cut(recording: str, slices: int, per_block: int) -> list[Block]:
    """Blocks of a recording of so many slices, in order; the last one holds the rest."""
    starts = range(0, slices, per_block)
    return [Block(recording, n, first, min(first + per_block, slices)) for n, first in enumerate(starts)]


def place(block: Block) -> float:
    """Place of a block in [0, 1).

    A hash of the path, the same on every machine, gives the first block's place; the others follow by the golden ratio,
    which spreads the blocks of one recording evenly: a long recording gives each split very nearly its share.
    """
    digest = hashlib.blake2b(block.recording.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") / 2**64 + block.number * GOLDEN_RATIO) % 1.0


def intervals(valid: float, test: float) -> dict[str, tuple[float, float]]:
    """Interval of places that belongs to each split, for shares ``valid`` and ``test`` of all blocks."""
    return {"train": (valid + test, 1.0), "valid": (test, test + valid), "test": (0.0, test)}


def assign(blocks: Sequence[Block], valid: float, test: float) -> tuple[list[str], dict[str, Block]]:
    """Split of each block; no split is empty.

    Where chance leaves a split of a small corpus empty, it is given the block whose place is nearest to its interval,
    among those of splits that keep another.

    Returns
    -------
    splits, moved
        One of :data:`SPLITS` for each block, and the block that each split got that would have been empty.

    Raises
    ------
    ValueError
        There are fewer blocks than splits.
    """
    if len(blocks) < len(SPLITS):
        raise ValueError(f"{len(blocks)} blocks for {len(SPLITS)} splits")
    places = [place(block) for block in blocks]
    limits = intervals(valid, test)
    splits = ["test" if at < test else "valid" if at < test + valid else "train" for at in places]
    moved = {}
    for missing in (split for split in SPLITS if split not in splits):
        low, high = limits[missing]
        sizes = Counter(splits)
        spare = [i for i, split in enumerate(splits) if sizes[split] > 1]
        nearest = min(spare, key=lambda i: (max(low - places[i], places[i] - high), blocks[i]))
        splits[nearest] = missing
        moved[missing] = blocks[nearest]
    return splits, moved
