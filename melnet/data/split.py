"""The split of recordings into train, validation and test.

A recording is cut into blocks of whole slices. Each block has a position in [0, 1) that depends only on the recording's
relative path and the block's number, and each split owns an interval of that range. So the split of a recording stays
as it is when others are added or removed.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SPLITS = ("train", "valid", "test")
GOLDEN_RATIO = (5**0.5 - 1) / 2
FEWEST_BLOCKS = 3  # one for each split
ENOUGH_BLOCKS = 10
DEFAULT_SECONDS = 20.0
ENOUGH_RECORDINGS = 4  # in each split, for recordings to stay whole


class Block(NamedTuple):
    """The slices [first, last) of a recording, which all go to one split."""

    recording: str
    number: int
    first: int
    last: int


def slices_per_block(block_seconds: float, slice_seconds: float) -> int:
    """Number of whole slices in the block nearest to ``block_seconds``; at least one.

    >>> slices_per_block(block_seconds=20.0, slice_seconds=50 * 512 / 24000)
    19
    """
    return max(1, round(block_seconds / slice_seconds))


def enough_recordings(slices: Sequence[int], valid: float, test: float) -> bool:
    """Whether recordings of so many slices are enough to stay whole: none is in two splits then.

    The smaller of the splits ``valid`` and ``test``, given as shares from 0 to 1, expects at least four recordings, and
    no recording is longer than that split.

    >>> enough_recordings([12] * 50, valid=0.1, test=0.1), enough_recordings([12] * 50 + [400], valid=0.1, test=0.1)
    (True, False)
    """
    share = min(valid, test)
    return len(slices) * share >= ENOUGH_RECORDINGS and max(slices) <= share * sum(slices)


def fitting_block(slices: Iterable[int], per_block: int) -> int:
    """Slices per block for recordings of so many slices: ``per_block``, or fewer in a small corpus.

    Where the recordings make fewer than three blocks, blocks are halved until there are ten, or until each holds one
    slice.

    >>> fitting_block([100, 80], per_block=19), fitting_block([30], per_block=19)
    (19, 2)
    """
    counts = list(slices)

    def blocks(size: int) -> int:
        return sum(-(-count // size) for count in counts)

    if blocks(per_block) < FEWEST_BLOCKS:
        while per_block > 1 and blocks(per_block) < ENOUGH_BLOCKS:
            per_block //= 2
    return per_block


def cut(recording: str, slices: int, per_block: int) -> list[Block]:
    """Blocks of a recording of so many slices, in order; the last one holds the rest.

    >>> [(block.first, block.last) for block in cut("song.wav", slices=5, per_block=2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    starts = range(0, slices, per_block)
    return [Block(recording, n, first, min(first + per_block, slices)) for n, first in enumerate(starts)]


def position(block: Block) -> float:
    """Position of a block in [0, 1).

    A hash of the path, the same on every machine, gives the first block's position. The others follow by steps of the
    golden ratio, which spreads the blocks of one recording evenly: a long recording gives each split nearly its share.

    >>> round(position(Block("song.wav", number=0, first=0, last=19)), 3)
    0.201
    """
    digest = hashlib.blake2b(block.recording.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") / 2**64 + block.number * GOLDEN_RATIO) % 1.0


def intervals(valid: float, test: float) -> dict[str, tuple[float, float]]:
    """Interval of positions that each split owns, for shares ``valid`` and ``test`` of all blocks.

    >>> intervals(valid=0.25, test=0.25)
    {'train': (0.5, 1.0), 'valid': (0.25, 0.5), 'test': (0.0, 0.25)}
    """
    return {"train": (valid + test, 1.0), "valid": (test, test + valid), "test": (0.0, test)}


def assign(blocks: Sequence[Block], valid: float, test: float) -> tuple[list[str], dict[str, Block]]:
    """Split of each block; no split is empty.

    Where chance leaves a split of a small corpus empty, it gets the block whose position is nearest to its interval,
    out of the splits that have more than one block.

    Returns
    -------
    splits, moved
        One of :data:`SPLITS` for each block; and, for each split that would have been empty, the block that it got.

    Raises
    ------
    ValueError
        There are fewer blocks than splits.

    >>> assign(cut("song.wav", slices=5, per_block=1), valid=0.2, test=0.2)[0]
    ['valid', 'train', 'train', 'test', 'train']
    """
    if len(blocks) < len(SPLITS):
        raise ValueError(f"{len(blocks)} blocks for {len(SPLITS)} splits")
    positions = [position(block) for block in blocks]
    limits = intervals(valid, test)
    splits = ["test" if at < test else "valid" if at < test + valid else "train" for at in positions]
    moved = {}
    for missing in (split for split in SPLITS if split not in splits):
        low, high = limits[missing]
        sizes = Counter(splits)
        spare = [i for i, split in enumerate(splits) if sizes[split] > 1]
        nearest = min(spare, key=lambda i: (max(low - positions[i], positions[i] - high), blocks[i]))
        splits[nearest] = missing
        moved[missing] = blocks[nearest]
    return splits, moved
