import numpy as np
import pytest

from melnet.audio.mel import MelSpec
from melnet.audio.spectrogram import frame_count
from melnet.data.tracks import ABSENT
from melnet.metrics import asked as module
from melnet.metrics.asked import MelodyAgreement, PhonemeClassifier, melody_agreement

MEL = MelSpec()
SEMITONE = np.log(2) / 12
BANDS = 12


@pytest.fixture(autouse=True)
def fewer_updates(monkeypatch):
    monkeypatch.setattr(module, "UPDATES", 300)


def glide(start, end, seconds=2.0, sample_rate=MEL.sample_rate):
    """Audio of three harmonics whose pitch goes from one frequency to another, and the melody of its frames."""
    samples = round(seconds * sample_rate)
    log_pitch = np.linspace(np.log(start), np.log(end), samples)
    phase = 2 * np.pi * np.cumsum(np.exp(log_pitch)) / sample_rate
    signal = sum(0.2 / k * np.sin(k * phase) for k in (1, 2, 3)).astype(np.float32)
    centres = np.minimum(np.arange(frame_count(samples, MEL)) * MEL.hop_length, samples - 1)
    return signal, np.stack([log_pitch[centres], np.ones(len(centres))], axis=1).astype(np.float32)


def transposed(melody, semitones):
    return melody + np.array([semitones * SEMITONE, 0], np.float32)


def test_a_glide_sung_as_asked():
    signal, melody = glide(150, 400)
    found = melody_agreement([melody], [signal], MEL)
    assert found.pitch_accuracy > 0.97
    assert found.voicing_agreement > 0.95
    assert found.contour_correlation > 0.99


@pytest.mark.parametrize(("semitones", "accuracy"), [(0.25, 1), (-0.25, 1), (1, 0), (-1, 0), (12, 0)])
def test_a_transposed_glide_has_the_contour_but_not_the_pitch(semitones, accuracy):
    signal, melody = glide(150, 400)
    found = melody_agreement([transposed(melody, semitones)], [signal], MEL)
    assert found.pitch_accuracy == pytest.approx(accuracy, abs=0.03)
    assert found.contour_correlation > 0.99


def test_a_glide_in_the_other_direction_has_a_negative_correlation():
    signal, melody = glide(150, 400)
    assert melody_agreement([melody[::-1]], [signal], MEL).contour_correlation < -0.99


def test_frames_voiced_in_one_only_count_for_the_voicing_alone():
    signal, melody = glide(150, 400)
    signal[len(signal) // 2 :] = 0
    found = melody_agreement([melody], [signal], MEL)
    assert found.voicing_agreement == pytest.approx(0.5, abs=0.04)
    assert found.pitch_accuracy > 0.95
    melody[len(melody) // 2 :, 1] = 0
    assert melody_agreement([melody], [signal], MEL).voicing_agreement > 0.95


def test_frames_of_all_signals_count_alike():
    """Three seconds are sung as asked, one is a semitone off."""
    (first, asked_first), (second, asked_second) = glide(150, 400, seconds=3.0), glide(200, 250, seconds=1.0)
    found = melody_agreement([asked_first, transposed(asked_second, 1)], [first, second], MEL)
    assert found.pitch_accuracy == pytest.approx(0.75, abs=0.03)


def test_frames_that_one_side_lacks_do_not_count():
    signal, melody = glide(150, 400)
    whole = melody_agreement([melody[:40]], [signal], MEL)
    assert whole == melody_agreement([melody[:40]], [np.append(signal, np.zeros(24000, np.float32))], MEL)
    longer = np.concatenate([melody, np.repeat(melody[-1:], 40, axis=0)])
    assert melody_agreement([longer], [signal], MEL).voicing_agreement > 0.95


def test_nothing_to_compare_has_no_agreement():
    signal, melody = glide(220, 220)
    assert melody_agreement([], [], MEL) == MelodyAgreement(None, None, None)
    assert melody_agreement([melody[:0]], [signal], MEL) == MelodyAgreement(None, None, None)
    assert melody_agreement([melody], [0 * signal], MEL) == MelodyAgreement(None, 0.0, None)
    steady = melody_agreement([melody], [signal], MEL)
    assert steady.contour_correlation is None  # the pitch asked for does not change
    assert steady.pitch_accuracy == 1


def sung(rng, sequences=6, phonemes=4, frames=300):
    """Spectrograms whose phonemes, 10 frames each, have spectra of their own. The first is as common as all others."""
    spectra = np.random.default_rng(1).standard_normal((phonemes + 1, BANDS))
    odds = np.r_[phonemes - 1, np.ones(phonemes - 1)]
    labels = [
        np.repeat(rng.choice(phonemes, frames // 10, p=odds / odds.sum()) + 1, 10).astype(np.int32)
        for _ in range(sequences)
    ]
    return [(spectra[of] + 0.3 * rng.standard_normal((frames, BANDS))).astype(np.float32) for of in labels], labels


def test_phonemes_of_different_spectra_are_recognised(rng):
    (x, labels), (unseen, truth) = sung(rng), sung(rng)
    classifier = PhonemeClassifier.fit(x, labels, seed=0)
    assert classifier.accuracy(unseen, truth) > 0.97
    predicted = classifier.predict(unseen[0])
    assert predicted.dtype == np.int32
    assert classifier.accuracy(unseen[:1], truth[:1]) == np.mean(predicted == truth[0])


def test_labels_that_say_nothing_leave_the_share_of_the_commonest(rng):
    (x, labels), (unseen, truth) = sung(rng, sequences=20), sung(rng, sequences=20)
    classifier = PhonemeClassifier.fit(x, [rng.permutation(np.concatenate(labels))[:300] for _ in x], seed=0)
    majority = np.mean(np.concatenate(truth) == 1)
    assert classifier.accuracy(unseen, truth) == pytest.approx(majority, abs=0.1)


@pytest.mark.parametrize("offset", [-3, 2])
def test_neighbours_are_seen(offset, rng):
    x = [rng.choice([-1.0, 1.0], (400, 1)) for _ in range(6)]
    labels = [np.where(np.roll(of[:, 0], -offset) > 0, 2, 1).astype(np.int32) for of in x]
    assert PhonemeClassifier.fit(x[:5], labels[:5], seed=0).accuracy(x[5:], labels[5:]) > 0.97


def test_edge_frames_are_repeated(rng):
    x, labels = sung(rng)
    classifier = PhonemeClassifier.fit(x, labels, seed=0)
    padded = np.pad(x[0][37:44], ((3, 3), (0, 0)), "edge")
    assert (classifier.predict(x[0][37:44]) == classifier.predict(padded)[3:-3]).all()


def test_frames_without_a_phoneme_do_not_count(rng):
    x, labels = sung(rng)
    classifier = PhonemeClassifier.fit(x, labels, seed=0)
    noise = 9 * rng.standard_normal((500, BANDS)).astype(np.float32)
    absent = np.full(500, ABSENT, np.int32)
    same = PhonemeClassifier.fit([noise, *x, noise], [absent, *labels, absent], seed=0)
    assert (same.predict(noise) == classifier.predict(noise)).all()

    wrong = labels[0] % 4 + 1
    half = np.arange(300) < 150
    assert classifier.accuracy(x[:1], [np.where(half, labels[0], wrong)]) == pytest.approx(0.5, abs=0.03)
    assert classifier.accuracy(x[:1], [np.where(half, labels[0], ABSENT)]) > 0.97


def test_no_frame_with_a_phoneme(rng):
    x, labels = sung(rng)
    absent = [np.full(300, ABSENT, np.int32) for _ in x]
    assert PhonemeClassifier.fit([], [], seed=0) is None
    assert PhonemeClassifier.fit(x, absent, seed=0) is None
    classifier = PhonemeClassifier.fit(x, labels, seed=0)
    assert classifier.accuracy([], []) is None
    assert classifier.accuracy(x, absent) is None
    assert classifier.predict(x[0][:0]).shape == (0,)


def test_more_phonemes_than_frames_are_refused(rng):
    x, labels = sung(rng)
    with pytest.raises(ValueError, match="frame 299, but the spectrogram has 290 frames"):
        PhonemeClassifier.fit([x[0], x[1][:290]], labels[:2], seed=0)


@pytest.mark.parametrize("frames", [1, 40])
def test_a_corpus_of_a_single_phoneme(frames, rng):
    x = rng.standard_normal((frames, BANDS))
    classifier = PhonemeClassifier.fit([x], [np.full(frames, 7, np.int32)], seed=0)
    assert classifier.predict(x).tolist() == [7] * frames
    assert classifier.accuracy([x], [np.full(frames, 6, np.int32)]) == 0


def test_the_seed_decides(rng):
    x, labels = sung(rng)
    noise = rng.standard_normal((2000, BANDS))
    one, same, other = (
        PhonemeClassifier.fit(x, labels, seed=seed, max_frames=500).predict(noise).tolist() for seed in (3, 3, 4)
    )
    assert one == same != other


def test_frames_are_drawn_from_all_sequences(rng, monkeypatch):
    """Each sequence holds one phoneme, and its spectrum says so: a frame with a wrong label would be seen."""
    fitted = []
    fit = module.MLPClassifier.fit
    monkeypatch.setattr(module.MLPClassifier, "fit", lambda self, x, y: fitted.append((x, y)) or fit(self, x, y))
    x = [np.full((50 + i, BANDS), i, np.float32) for i in range(1, 9)]
    labels = [np.full(50 + i, i, np.int32) for i in range(1, 9)]
    PhonemeClassifier.fit(x, labels, seed=0, max_frames=100)
    ((features, phonemes),) = fitted
    assert features.shape == (100, 7 * BANDS)
    assert (features == phonemes[:, None]).all()
    assert set(phonemes.tolist()) == set(range(1, 9))
