"""The split is stable, keeps its shares and leaves nothing empty."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.data.split import (
    SPLITS,
    Block,
    assign,
    cut,
    enough_recordings,
    fitting_block,
    intervals,
    position,
    slices_per_block,
)

SLICE_SECONDS = 50 * 512 / 24000
corpora = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 60), min_size=1, max_size=20)


def blocks_of(corpus: dict[str, int], per_block: int) -> list[Block]:
    return [block for recording, slices in corpus.items() for block in cut(recording, slices, per_block)]


def test_blocks_are_whole_slices():
    assert slices_per_block(20.0, SLICE_SECONDS) == 19  # 20 s are 937.5 frames
    assert slices_per_block(0.1, SLICE_SECONDS) == 1


@given(slices=st.integers(0, 500), per_block=st.integers(1, 50))
def test_blocks_cover_a_recording_without_overlap(slices, per_block):
    blocks = cut("a", slices, per_block)
    assert [k for block in blocks for k in range(block.first, block.last)] == list(range(slices))
    assert [block.number for block in blocks] == list(range(len(blocks)))
    assert all(0 < block.last - block.first <= per_block for block in blocks)


def test_positions_are_the_same_on_every_machine():
    assert [position(Block("a/b.wav", number, 0, 1)) for number in range(3)] == pytest.approx(
        [0.369249443736048, 0.987283432485943, 0.605317421235838], abs=1e-12
    )


@given(corpus=corpora, added=corpora, per_block=st.integers(1, 20))
@settings(deadline=None)
def test_adding_recordings_leaves_the_split_of_the_others(corpus, added, per_block):
    before, after = blocks_of(corpus, per_block), blocks_of({**added, **corpus}, per_block)
    if len(before) < 3:
        return
    first, moved_first = assign(before, 0.1, 0.2)
    second, moved_second = assign(after, 0.1, 0.2)
    split = dict(zip(after, second, strict=True))
    moved = {*moved_first.values(), *moved_second.values()}
    assert all(split[block] == was for block, was in zip(before, first, strict=True) if block not in moved)


@given(corpus=corpora, per_block=st.integers(1, 20), valid=st.floats(0.001, 0.49), test=st.floats(0.001, 0.49))
@settings(deadline=None)
def test_every_block_has_a_split_and_no_split_is_empty(corpus, per_block, valid, test):
    blocks = blocks_of(corpus, per_block)
    if len(blocks) < 3:
        return
    splits, moved = assign(blocks, valid, test)
    assert set(splits) == set(SPLITS)
    limits = intervals(valid, test)
    for block, split in zip(blocks, splits, strict=True):
        low, high = limits[split]
        assert low <= position(block) < high or moved[split] == block


@pytest.mark.parametrize("recording", ["song.wav", "a/b/c.flac", "ü"])
def test_a_long_recording_gives_each_split_its_share(recording):
    splits, moved = assign(cut(recording, 1000, 1), 0.1, 0.2)
    counts = Counter(splits)
    assert moved == {}
    assert (counts["train"], counts["valid"], counts["test"]) == pytest.approx((700, 100, 200), abs=4)


def test_many_short_recordings_give_each_split_its_share():
    splits, _ = assign([Block(f"{i}.wav", 0, 0, 1) for i in range(10000)], 0.1, 0.2)
    counts = Counter(splits)
    assert (counts["train"], counts["valid"], counts["test"]) == pytest.approx((7000, 1000, 2000), abs=150)


def test_the_nearest_block_fills_an_empty_split():
    blocks = [block for i in range(200) for block in [Block(f"{i}.wav", 0, 0, 1)] if position(block) > 0.3][:10]
    splits, moved = assign(blocks, 0.1, 0.1)
    by_position = sorted(blocks, key=position)
    assert moved == {"valid": by_position[0], "test": by_position[1]}
    assert Counter(splits) == {"train": 8, "valid": 1, "test": 1}


def test_two_blocks_are_too_few():
    with pytest.raises(ValueError, match="2 blocks"):
        assign(cut("a", 2, 1), 0.1, 0.1)


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([19, 19, 1], 19),  # three blocks are enough
        ([100], 19),
        ([30, 2], 19),  # three
        ([38], 4),  # two blocks become ten
        ([7], 1),  # one block becomes seven, one slice each
        ([0, 1, 1], 1),
        ([0], 1),
    ],
)
def test_blocks_shrink_for_a_tiny_corpus(slices, expected):
    assert fitting_block(slices, 19) == expected


@pytest.mark.parametrize(
    ("slices", "enough"),
    [([12] * 40, True), ([12] * 39, False), ([12] * 50 + [70], False), ([12] * 50 + [60], True), ([500], False)],
)
def test_recordings_stay_whole_where_each_split_gets_some_and_none_is_too_long(slices, enough):
    assert enough_recordings(slices, valid=0.1, test=0.2) == enough
