"""Labels and pitch at the centres of frames, through the pauses that were cut, against independent computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.audio.mel import MelSpec
from melnet.audio.pauses import Cut, find_cuts, without_cuts
from melnet.data.frame_conditions import original_samples, phonemes_at, recording_tracks, vocabulary_of
from melnet.data.labels.label import Label

RATE = 24000
MEL = MelSpec()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(30, 200), min_size=2, max_size=7), st.booleans(), st.sampled_from([0.05, 0.5]))
def test_samples_come_from_where_the_cut_recording_has_them(lengths, silent_first, max_pause):
    """The signal is its own position: what is left after the cuts says where it is from."""
    loud = (np.arange(len(lengths)) % 2 == 0) ^ silent_first
    powers = np.repeat(loud.astype(float), lengths)
    samples = len(powers) * RATE // 100
    cuts = find_cuts(powers, samples, RATE, max_pause)
    signal = np.arange(samples, dtype=np.float64)
    kept = np.concatenate(list(without_cuts(lambda start, stop: signal[start:stop], samples, cuts, RATE)))
    found = original_samples(np.arange(len(kept)), cuts)
    crossfades = np.zeros(len(kept), bool)
    removed = 0
    for cut in cuts:
        at = cut.start - removed
        crossfades[at : at + 192] = True  # 8 ms that fade from one position to the other
        crossfades[max(0, at - 192) : at] |= cut.stop == samples  # and fade out at the end
        removed += cut.stop - cut.start
    np.testing.assert_array_equal(found[~crossfades], kept[~crossfades])
    assert len(kept) == samples - removed


def test_frames_have_the_label_at_their_centre():
    hop = MEL.hop_length
    labels = [Label(0, 10 * hop / RATE, "a"), Label(10 * hop / RATE, 20.5 * hop / RATE, "i")]
    vocabulary = vocabulary_of("phonemes", [labels])
    melody, phonemes = recording_tracks(30 * hop, MEL, np.zeros(50), labels, [], vocabulary)
    assert phonemes.tolist() == [1] * 10 + [2] * 11 + [0] * 10
    assert melody.shape == (31, 2) and not melody[:, 1].any()


def test_labels_follow_the_pauses_that_were_cut():
    """A note every second, and all but a tenth of the second between cut out: labels stay with their notes."""
    labels = [Label(2 * i, 2 * i + 1, name) for i, name in enumerate("abc")]
    cuts = [Cut(round((2 * i + 1.05) * RATE), round((2 * i + 1.95) * RATE)) for i in range(2)]
    vocabulary = vocabulary_of("phonemes", [labels])
    samples = 5 * RATE - 2 * round(0.9 * RATE)
    _, phonemes = recording_tracks(samples, MEL, np.zeros(10), labels, cuts, vocabulary)
    for frame, phoneme in enumerate(phonemes.tolist()):
        note, second = divmod(frame * MEL.hop_length / RATE, 1.1)
        assert phoneme == (int(note) + 1 if second < 1 else 0)


def test_melody_goes_straight_through_what_is_not_voiced():
    track = np.repeat([200.0, 0.0, 400.0], [100, 100, 100])
    melody, phonemes = recording_tracks(round(4.8 * RATE), MEL, track, None, [], vocabulary_of("phonemes", []))
    assert phonemes is None
    seconds = np.arange(len(melody)) * MEL.hop_length / RATE
    voiced = melody[:, 1] > 0
    np.testing.assert_array_equal(voiced, (seconds < 1.592) | ((seconds > 3.192) & (seconds < 4.792)))
    np.testing.assert_allclose(np.exp(melody[voiced, 0]), np.where(seconds[voiced] < 2, 200, 400), rtol=1e-5)
    middle = int(np.argmin(abs(seconds - 2.392)))
    assert np.exp(melody[middle, 0]) == pytest.approx(200 * 2**0.5, rel=0.01)


def test_a_vocabulary_is_sorted_and_has_median_durations():
    labels = [Label(0, 1, "t"), Label(1, 1.5, "a"), Label(2, 2.1, "a"), Label(3, 3.3, "a")]
    found = vocabulary_of("characters", [labels[:2], labels[2:]])
    assert (found.unit, found.names, found.seconds) == ("characters", ("a", "t"), (0.3, 1.0))
    assert phonemes_at([], np.zeros(3), found).tolist() == [0, 0, 0]
