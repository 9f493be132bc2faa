"""Sampling: the same for the same seed, whatever else is drawn beside or after it; for one tier and for three."""

import os
import subprocess
import sys

import numpy as np
import pytest
from keras import ops

from melnet import sampling
from melnet.backend import compiled
from melnet.model.multiscale import shape, split, target_and_context
from melnet.model.tier import Tier
from melnet.sampling import CHUNK_FRAMES, GROUP, Noise, Sampler, SamplingSettings, group_size, sample_bytes

BANDS = 6
LOW, HIGH = np.linspace(-3, -2, BANDS, dtype=np.float32), np.full(BANDS, 3, np.float32)


def make_tiers(count):
    rng = np.random.default_rng(7)
    tiers = []
    for number in range(1, count + 1):
        tier = Tier(
            bands=shape(number, count, 2, BANDS).bands,
            layers=1,
            hidden=8,
            num_components=3,
            min_sigma=0.02,
            feature_layers=0 if number == 1 else 1,
            singers=2,
        )
        tier.set_weights([rng.normal(scale=0.3, size=w.shape).astype("float32") for w in tier.get_weights()])
        tiers.append(tier)
    return tiers


@pytest.fixture(scope="module", params=[1, 3], ids=["one tier", "three tiers"])
def tiers(request):
    return make_tiers(request.param)


@pytest.fixture(scope="module")
def sampler(tiers):
    return Sampler(tiers, LOW, HIGH)


@pytest.fixture(scope="module")
def samples(sampler):
    return sampler.sample(3, 7, seed=5)


@pytest.fixture(scope="module")
def chunked(tiers):
    """Samples as on an accelerator, in groups of 16 and chunks of 4 frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "device_memory", lambda: 40 * max(sample_bytes(tier, 0, 8) for tier in tiers))
        patch.setattr(sampling, "CHUNK_FRAMES", 4)
        yield Sampler(tiers, LOW, HIGH, chunked=True)


def test_shape_and_variety(samples):
    assert samples.shape == (3, 7, BANDS)  # of three tiers an eighth frame was drawn and left out
    assert samples.dtype == np.float32
    assert ((samples >= LOW) & (samples <= HIGH)).all()
    assert samples.std(axis=0).min() > 0.01


def test_draws_near_the_floor_lie_on_it_in_bands_that_reach_it(tiers, samples):
    floor = np.where(np.arange(BANDS) < 3, LOW, LOW - 1).astype(np.float32)
    found = Sampler(tiers, LOW, HIGH, floor=floor).sample(40, 8, seed=5)
    near = found < LOW + 0.06
    assert (found == LOW)[..., :3].any() and (near & (found > LOW))[..., 3:].any()
    np.testing.assert_array_equal(near[..., :3], (found == LOW)[..., :3])


def test_seed_decides(sampler, samples):
    np.testing.assert_array_equal(sampler.sample(3, 7, seed=5), samples)
    assert (sampler.sample(3, 7, seed=6) != samples).mean() > 0.9


def test_a_sample_does_not_depend_on_the_number_drawn_with_it(sampler, samples):
    """To the last bit, and beyond one group of them."""
    for count in (1, GROUP + 2):
        np.testing.assert_array_equal(sampler.sample(count, 7, seed=5)[:3], samples[:count])


def test_every_frame_of_every_tier_and_group_is_reported(tiers, sampler):
    calls = []
    sampler.sample(GROUP + 1, 6, seed=5, on_frame=lambda: calls.append(1))
    frames = {1: 6, 3: 3 + 3 + 6}[len(tiers)]
    assert len(calls) == sampler.steps(GROUP + 1, 6) == 2 * frames


def test_singers_do_not_reach_each_other(sampler, samples):
    other = sampler.sample(3, 7, seed=5, singers=np.array([0, 1, 0]))
    np.testing.assert_array_equal(other[::2], samples[::2])
    assert (other[1] != samples[1]).mean() > 0.5


@pytest.mark.parametrize("chunked", [False, True])
def test_texts_do_not_reach_each_other(chunked):
    rng = np.random.default_rng(7)
    tier = Tier(bands=BANDS, layers=1, hidden=8, num_components=3, min_sigma=0.02, text=6)
    tier.set_weights([rng.normal(scale=0.3, size=w.shape).astype("float32") for w in tier.get_weights()])
    sampler = Sampler([tier], LOW, HIGH, chunked=chunked)
    text = np.array([[5, 1, 2, 0], [3, 4, 1, 2], [5, 1, 2, 0]], np.int32)
    first, other = (sampler.sample(3, 7, seed=5, text=rows) for rows in (text, text[[0, 0, 2]]))
    np.testing.assert_array_equal(first[[0, 2]], other[[0, 2]])
    assert np.abs(first[1] - other[1]).max() > 1e-3
    assert np.abs(first - sampler.sample(3, 7, seed=5)).max(axis=(1, 2)).min() > 1e-3


def test_a_longer_sample_of_one_tier_begins_with_the_shorter():
    """With several tiers it does not, because later tiers see all frames of the earlier ones."""
    sampler = Sampler(make_tiers(1), LOW, HIGH)
    np.testing.assert_array_equal(sampler.sample(3, 10, seed=5)[:, :7], sampler.sample(3, 7, seed=5))


@pytest.mark.parametrize("known", [4, 5])
def test_a_prime_is_continued_as_a_sample_continues_itself(tiers, known):
    """Given the beginning of a sample as prime, the continuation has the mixtures of a pass over both.

    Temperature 0 leaves no chance in what is drawn from them, so that equal mixtures are equal values.
    """
    sampler = Sampler(tiers, np.full(BANDS, -9, np.float32), np.full(BANDS, 9, np.float32))
    prime = np.random.default_rng(3).normal(size=(known, BANDS)).astype(np.float32)
    drawn = sampler.sample(1, 4, 1, SamplingSettings(temperature=0.0), prime=prime)
    used = prime[known % 2 :] if len(tiers) > 1 else prime
    whole = np.concatenate([used[None], drawn], axis=1)
    for number, tier in enumerate(tiers, start=1):
        target, context = target_and_context(whole, number, len(tiers))
        given = {"x": target, "singer": np.zeros(1, np.int32)} | ({} if context is None else {"context": context})
        mixtures = ops.convert_to_numpy(compiled(tier)(given))
        means, _, logits = np.split(mixtures, 3, axis=-1)
        modes = np.take_along_axis(means, logits.argmax(-1)[..., None], -1)[..., 0]
        beginning = len(split(used, len(tiers))[number - 1])
        np.testing.assert_allclose(target[:, beginning:], modes[:, beginning:], atol=1e-4)


def test_temperature_zero_has_no_chance_in_it(sampler):
    samples = sampler.sample(2, 7, 5, SamplingSettings(temperature=0.0))
    np.testing.assert_array_equal(samples[0], samples[1])


def test_one_top_component_leaves_its_spread(sampler):
    samples = sampler.sample(2, 7, 5, SamplingSettings(top_components=1))
    assert (samples[0] != samples[1]).mean() > 0.5


def test_a_stream_is_the_first_sample(tiers, sampler, samples):
    """With several tiers its first block is, as long as that block."""
    stream = sampler.stream(SamplingSettings(), seed=5, block=2)
    found = np.concatenate([next(stream) for _ in range(3)])
    if len(tiers) == 1:
        np.testing.assert_array_equal(found, samples[0, :6])
    else:
        np.testing.assert_array_equal(found[:2], sampler.sample(1, 2, seed=5)[0])
        assert (found[2:4] != found[4:]).mean() > 0.5


def test_a_stream_continues_a_prime_and_sings_for_a_singer(tiers, sampler):
    prime = np.random.default_rng(3).normal(size=(4, BANDS)).astype(np.float32)
    first = next(sampler.stream(SamplingSettings(), seed=5, block=4, singer=1, prime=prime))
    np.testing.assert_array_equal(first, sampler.sample(1, 4, seed=5, singers=np.ones(1), prime=prime)[0])


def test_the_temperature_of_a_stream_can_be_changed_meanwhile(sampler):
    settings = SamplingSettings()
    streams = [sampler.stream(settings, seed=seed, block=2) for seed in (1, 2)]
    assert (next(streams[0]) != next(streams[1])).mean() > 0.5
    settings.temperature = 0.0
    cold = [sampler.stream(settings, seed=seed, block=2) for seed in (1, 2)]
    np.testing.assert_array_equal(next(cold[0]), next(cold[1]))
    settings.top_components = 1
    for name, value in (("temperature", -0.5), ("temperature", float("nan")), ("top_components", 0)):
        with pytest.raises(ValueError, match=f"{name}: {value}"):
            setattr(settings, name, value)


def test_noise_of_a_sample_is_its_own():
    few, many = Noise(1, range(2), 4)(3), Noise(1, range(5), 4)(6)
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:3, :, :2])
    assert len(np.unique(many[0])) == many[0].size
    assert not (Noise(1, range(2), 4, tier=2)(3)[0] == few[0]).any()


def test_noise_goes_on_from_call_to_call():
    piecewise = Noise(1, range(2), 3)
    pieces = zip(*(piecewise(frames) for frames in (1, 3, 2)), strict=True)
    for found, whole in zip(map(np.concatenate, pieces), Noise(1, range(2), 3)(6), strict=True):
        np.testing.assert_array_equal(found, whole)


def test_chunks_draw_what_single_frames_draw(sampler, chunked):
    singers, settings = np.array([0, 1, 1]), SamplingSettings(0.9, top_components=2)
    prime = np.random.default_rng(3).normal(size=(4, BANDS)).astype(np.float32)
    for frames in (8, 10):  # the first fills its chunks; of the second one or two frames are left
        given = {"singers": singers, "prime": prime} if frames == 10 else {}
        expected = sampler.sample(3, frames, 5, settings, **given)
        np.testing.assert_allclose(chunked.sample(3, frames, 5, settings, **given), expected, atol=1e-4)


def test_a_sample_in_chunks_does_not_depend_on_its_neighbours(chunked):
    """To the last bit: neither on their number, in one group or in two, nor on their singers."""
    samples = chunked.sample(3, 7, seed=5)
    assert samples.std(axis=0).min() > 0.01
    for count in (1, GROUP + 2, 2 * GROUP + 1):
        np.testing.assert_array_equal(chunked.sample(count, 7, seed=5)[:3], samples[:count])
    other = chunked.sample(3, 7, seed=5, singers=np.array([0, 1, 0]))
    np.testing.assert_array_equal(other[::2], samples[::2])
    assert (other[1] != samples[1]).mean() > 0.5


def test_every_frame_that_is_drawn_in_chunks_is_reported(tiers, chunked):
    for count in (GROUP + 1, 3 * GROUP):
        calls = []
        chunked.sample(count, 6, seed=5, on_frame=lambda calls=calls: calls.append(1))
        assert len(calls) == chunked.steps(count, 6) > 0


def test_a_chunked_stream_is_the_first_sample(tiers, chunked):
    stream = chunked.stream(SamplingSettings(), seed=5, block=2)
    found = np.concatenate([next(stream) for _ in range(3)])
    frames = 6 if len(tiers) == 1 else 2
    np.testing.assert_allclose(found[:frames], chunked.sample(1, frames, seed=5)[0], atol=1e-4)
    assert (found[2:4] != found[4:]).mean() > 0.5


def test_a_group_takes_half_of_the_memory_at_most():
    assert group_size(10, 10 * 256 * 2) == group_size(10, None) == group_size(10, 10**9) == 256
    assert group_size(10, 10 * 256 * 2 - 1) == group_size(10, 10 * 128 * 2) == 128
    assert group_size(10**9, 1) == GROUP


def test_later_tiers_and_primes_take_memory_for_all_frames():
    first, later = make_tiers(2)
    states = sample_bytes(first, 0, CHUNK_FRAMES)
    assert sample_bytes(first, 0, 2 * CHUNK_FRAMES) == states > 2 * 2 * 4 * BANDS * 8
    assert sample_bytes(first, 10, 0) == sample_bytes(later, 0, 10) == sample_bytes(later, 4, 6) > 10 * states / 2


def test_chunks_under_jax():
    """The tests of chunks above with the other backend."""
    pytest.importorskip("jax")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "chunk and not jax", __file__]
    done = subprocess.run(command, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout
