from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.image import imread

from melnet.audio.mel import MelSpec
from stages.figures import curves, save, spectrogram_strip, waveforms

MEL = MelSpec(sample_rate=24000, n_fft=2048, hop_length=512, n_mels=32, fmin=300.0, fmax=8000.0, floor=1e-5)
SECONDS_PER_FRAME = 512 / 24000
HISTORY = {"loss": [0.9, 0.5, 0.3], "val_loss": [1.0, 0.6, 0.7], "learning_rate": [8e-4, 8e-4, 4e-4]}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def strip(rng):
    rows = [("generated", rng.normal(size=(4, 100, 32))), ("real", rng.normal(size=(4, 50, 32)))]
    return spectrogram_strip(rows, MEL.edges_hz, SECONDS_PER_FRAME)


def spectrogram_axes(figure):
    return [axes for axes in figure.axes if axes.images]


def make_figures(seed):
    rng = np.random.default_rng(seed)
    return [
        spectrogram_strip([("one", rng.normal(size=(2, 20, 32)))], MEL.edges_hz, SECONDS_PER_FRAME),
        waveforms([rng.uniform(-1, 1, 5000)], 24000, ["one"]),
        curves(HISTORY | {"loss": rng.uniform(0, 1, 3).tolist()}),
    ]


def png(figure, path):
    save(figure, path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", range(3))
def test_equal_input_gives_equal_bytes_and_other_input_others(kind, tmp_path):
    first, second, other = (png(make_figures(seed)[kind], tmp_path / f"{i}.png") for i, seed in enumerate((1, 1, 2)))
    assert first == second
    assert first != other
    assert b"Software" not in first


def test_a_figure_is_saved_in_a_new_folder_at_its_size(tmp_path):
    figure = curves(HISTORY)
    save(figure, tmp_path / "report" / "curves.png")
    pixels = imread(BytesIO((tmp_path / "report" / "curves.png").read_bytes()))
    width, height = figure.get_size_inches() * figure.dpi
    assert pixels.shape[:2] == (height, width)
    assert pixels[..., :3].std() > 0.05
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["curves.png"]


def test_strip_names_its_rows_and_units(strip):
    panels = spectrogram_axes(strip)
    assert len(panels) == 8
    for title, first in zip(("generated", "real"), (panels[0], panels[4]), strict=True):
        assert first.get_title(loc="left") == title
        assert first.get_xlabel() == "time (s)"
        assert first.get_ylabel() == "frequency (Hz)"
    assert "log power (nats)" in [axes.get_ylabel() for axes in strip.axes]


def test_strip_ticks_are_hz_at_the_bands_of_that_frequency(strip):
    axes = spectrogram_axes(strip)[0]
    centres = MEL.edges_hz[1:-1]
    ticks = dict(zip((float(label.get_text()) for label in axes.get_yticklabels()), axes.get_yticks(), strict=True))
    assert {500, 1000, 5000} <= set(ticks)
    for hz, height in ticks.items():
        below = int(height)
        assert centres[below] <= hz <= centres[below + 1]


def test_strip_has_one_scale_of_time_and_colour_for_all_rows(strip):
    strip.canvas.draw()
    panels = spectrogram_axes(strip)
    per_second = [axes.get_position().width / np.ptp(axes.get_xlim()) for axes in panels]
    # Gaps are shares of the mean width of a row's panels: a few per cent between rows.
    np.testing.assert_allclose(per_second, per_second[0], rtol=0.05)
    assert len({axes.images[0].get_clim() for axes in panels}) == 1
    assert panels[0].get_xlim() == pytest.approx((0, 100 * SECONDS_PER_FRAME))


def test_strip_draws_low_bands_at_the_bottom_and_early_frames_at_the_left():
    log_mel = np.zeros((1, 20, 32))
    log_mel[0, 15, 3] = 1
    figure = spectrogram_strip([("one", log_mel)], MEL.edges_hz, SECONDS_PER_FRAME)
    image = spectrogram_axes(figure)[0].images[0]
    assert image.origin == "lower"
    assert image.get_array()[3, 15] == 1
    assert image.get_extent() == pytest.approx((0, 20 * SECONDS_PER_FRAME, -0.5, 31.5))


def test_strip_labels_do_not_touch(rng):
    rows = [("long", rng.normal(size=(8, 200, 32))), ("short", rng.normal(size=(8, 50, 32)))]
    figure = spectrogram_strip(rows, MEL.edges_hz, SECONDS_PER_FRAME)
    figure.canvas.draw()
    for row in (spectrogram_axes(figure)[:8], spectrogram_axes(figure)[8:]):
        boxes = [label.get_window_extent() for axes in row for label in axes.get_xticklabels()]
        assert len(boxes) >= 8
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_strip_of_silence_is_drawn(tmp_path):
    silence = np.full((2, 30, 32), np.log(1e-5))
    save(spectrogram_strip([("silence", silence)], MEL.edges_hz, SECONDS_PER_FRAME), tmp_path / "silence.png")


def test_waveforms_share_seconds_and_amplitudes(rng):
    figure = waveforms([rng.uniform(-1, 1, 48000), np.zeros(24000)], 24000, ["first", "second"])
    first, second = figure.axes
    assert [first.get_title(loc="left"), second.get_title(loc="left")] == ["first", "second"]
    assert second.get_xlabel() == "time (s)"
    assert figure.get_supylabel() == "amplitude"
    assert first.get_ylim() == second.get_ylim() == (-1, 1)
    assert first.get_xlim() == second.get_xlim() == pytest.approx((0, 2), abs=0.01)


def test_waveforms_keep_a_single_click_among_many_samples():
    signal = np.zeros(1_000_000)
    signal[777_777] = 0.9
    seconds, amplitude = waveforms([signal], 24000, ["click"]).axes[0].lines[0].get_data()
    assert len(amplitude) <= 5000
    assert amplitude.max() == 0.9
    assert seconds[np.argmax(amplitude)] == pytest.approx(777_777 / 24000, abs=0.03)


def test_waveforms_of_few_samples_show_each():
    seconds, amplitude = waveforms([np.array([0.1, -0.2, 0.3])], 10, ["short"]).axes[0].lines[0].get_data()
    np.testing.assert_allclose(amplitude[::2], [0.1, -0.2, 0.3])
    np.testing.assert_allclose(seconds[::2], [0, 0.1, 0.2])


def test_curves_name_their_units_and_mark_the_best_epoch():
    loss, rate = curves(HISTORY).axes
    assert loss.get_ylabel() == "loss (nats per element)"
    assert curves(HISTORY, "nats").axes[0].get_ylabel() == "loss (nats)"
    assert rate.get_ylabel() == "learning rate"
    assert rate.get_xlabel() == "epoch"
    train, valid, best = loss.lines
    np.testing.assert_array_equal(train.get_data(), ([1, 2, 3], HISTORY["loss"]))
    np.testing.assert_array_equal(valid.get_data(), ([1, 2, 3], HISTORY["val_loss"]))
    assert set(best.get_xdata()) == {2}
    assert "epoch 2" in best.get_label()
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), HISTORY["learning_rate"])


def test_curves_of_one_epoch_are_drawn(tmp_path):
    save(curves({name: values[:1] for name, values in HISTORY.items()}), tmp_path / "one.png")
