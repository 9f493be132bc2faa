import numpy as np
import pytest

from melnet.vocoder.source import PulseSource

RATE, HOP = 24000, 512


def sum_of_cosines(pitch, voiced):
    """The pulses, harmonic by harmonic, with the phase integrated sample by sample."""
    time = np.arange((len(pitch) - 1) * HOP) / HOP
    frames = np.arange(len(pitch))
    hz = np.exp(np.interp(time, frames, np.log(pitch)))
    phase = 2 * np.pi * np.cumsum(hz) / RATE
    total = np.zeros(len(time))
    for harmonic in range(1, int(RATE / 2 / hz.min()) + 1):
        total += np.where(harmonic * hz <= RATE / 2, np.cos(harmonic * phase), 0)
    return 2 * np.sqrt(hz / RATE) * np.interp(time, frames, voiced) * total


@pytest.mark.parametrize("pitch", [[100, 100, 100], [1000, 1000, 1000], [200, 240, 180, 300], [65, 1100]])
def test_pulses_are_the_sum_of_all_harmonics_below_the_nyquist_frequency(pitch):
    voiced = np.linspace(1, 0.5, len(pitch))
    pulses = PulseSource(RATE, HOP, items=1)(np.log([pitch]), voiced[None])
    np.testing.assert_allclose(pulses[0], sum_of_cosines(pitch, voiced), atol=2e-3)


@pytest.mark.parametrize("pitch", [80.0, 220.0, 900.0])
def test_pulses_have_unit_power(pitch):
    pulses = PulseSource(RATE, HOP, items=1)(np.full((1, 50), np.log(pitch)), np.ones((1, 50)))
    assert np.mean(pulses**2) == pytest.approx(1, rel=0.1)


def test_the_phase_runs_on_from_call_to_call():
    log_pitch, voiced = np.log([[200, 240, 180, 300, 310]] * 2), np.ones((2, 5))
    whole = PulseSource(RATE, HOP, items=2)(log_pitch, voiced)
    source = PulseSource(RATE, HOP, items=2)
    parts = [source(log_pitch[:, :3], voiced[:, :3]), source(log_pitch[:, 2:], voiced[:, 2:])]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-6)


def test_unvoiced_is_silent():
    assert not PulseSource(RATE, HOP, items=1)(np.full((1, 5), np.log(200.0)), np.zeros((1, 5))).any()
