import re

import numpy as np
import pytest
from PIL import Image

from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.mel import MelSpec
from melnet.audio.spectrogram import log_mel
from stages.report_page.player_assets import (
    colour_range,
    colour_steps,
    frequency_ticks,
    inversion_error,
    outline,
    pitch_path,
    save_spectrogram,
    time_ticks,
)

MEL = MelSpec(sample_rate=24000, n_fft=2048, hop_length=512, n_mels=32, fmin=300.0, fmax=8000.0, floor=1e-5)


def tone(samples=30 * 512):
    return (0.3 * np.sin(2 * np.pi * 700 * np.arange(samples) / 24000)).astype(np.float32)


def test_picture_has_early_frames_left_and_low_bands_below(tmp_path):
    mel = np.zeros((20, 4))
    mel[15, 0] = 1
    save_spectrogram(tmp_path / "new" / "picture.png", mel, (0, 1))
    pixels = np.asarray(Image.open(tmp_path / "new" / "picture.png").convert("L"))
    assert pixels.shape == (4, 20)
    assert np.unravel_index(pixels.argmax(), pixels.shape) == (3, 15)
    # Values as far outside as may be have the colours of the ends.
    save_spectrogram(tmp_path / "loud.png", mel * 1e9 - 5, (0, 1))
    assert (np.asarray(Image.open(tmp_path / "loud.png").convert("L")) == pixels).all()


def test_colours_of_pictures_are_those_of_the_scale(tmp_path):
    save_spectrogram(tmp_path / "ramp.png", np.linspace(-3, 5, 9)[:, None], (-3, 5))
    pixels = np.asarray(Image.open(tmp_path / "ramp.png").convert("RGB"))[0].astype(int)
    expected = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colour_steps(9)]
    assert np.abs(pixels - expected).max() <= 3
    brightness = pixels @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > 0).all()


def test_colour_range_of_silence_is_not_empty():
    low, high = colour_range([np.full((10, 4), -11.5)])
    assert low == -11.5 < high


def test_outline_goes_through_the_extremes_of_each_part():
    signal = np.zeros(1000)
    signal[250], signal[750] = 1, -0.5
    points = [tuple(map(int, point)) for point in re.findall(r"(\d+),(\d+)", outline(signal, 10))]
    assert len(points) == 20
    assert min(points, key=lambda point: point[1])[1] == 0
    assert max(points, key=lambda point: point[1])[1] == 75
    assert outline(signal[:3], 10).count(",") == 6


def test_pitch_path_is_logarithmic_and_has_gaps():
    octave = round(1000 * np.log(2) / np.log(1100 / 65))
    lowest, second = f"{1000}", f"{1000 - octave}"
    track = np.array([0, 65, 130, 0, 1100, 0, 0, 65, 65], np.float32)
    assert pitch_path(track) == f"M1,{lowest}L2,{second}M4,0L4,0M7,{lowest}L8,{lowest}"
    assert pitch_path(np.array([60.0, 1200.0])) == "M0,1000L1,0"  # not outside the picture
    assert pitch_path(np.zeros(5)) == ""


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(4.25, [0, 1, 2, 3, 4]), (0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]), (25, [0, 5, 10, 15, 20, 25])],
)
def test_time_ticks_are_round_and_inside(seconds, expected):
    assert time_ticks(seconds) == pytest.approx(expected)


def test_frequency_ticks_stand_at_the_centre_of_their_band():
    edges = MEL.edges_hz
    ticks = frequency_ticks(edges)
    assert [hz for hz, _ in ticks][:2] == [500, 1000]
    for hz, height in ticks:
        band = height * 32 - 0.5
        assert edges[int(band) + 1] <= hz <= edges[int(band) + 2]
    assert min(np.diff([height for _, height in ticks])) >= 0.12


def test_inversion_error_is_of_the_shape_and_not_of_the_level():
    target = log_mel(tone(), MEL)
    copy = mel_to_audio(target[None], MEL, iterations=8, seed=0)[0]
    error = inversion_error(copy, target, MEL)
    assert 0 < error < 1
    assert inversion_error(0.1 * copy, target, MEL) == pytest.approx(error, rel=0.05)
    assert inversion_error(tone(), target[:31], MEL) < 0.01
    assert inversion_error(np.zeros_like(copy), target, MEL) > 1
