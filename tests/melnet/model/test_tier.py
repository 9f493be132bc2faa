"""A tier's order of elements, shown by gradients, and the agreement of its passes; for one tier and for many."""

from unittest.mock import Mock

import numpy as np
import pytest
from keras import ops

from melnet.backend import compiled, gradients
from melnet.data.tracks import UNKNOWN
from melnet.model import kernel_choice, stacks
from melnet.model.multiscale import (
    TierIndex,
    divisors,
    frame_rows,
    inputs_and_target,
    shape,
    split,
    target_and_context,
)
from melnet.model.recurrent import row
from melnet.model.tier import Tier

BATCH, SINGERS, PHONEMES, SYMBOLS = 2, 3, 5, 7
FIRST = 3, 2  # frames and bands of the first tier; each later one doubles one of them, whatever the number of tiers
LOOKAHEAD = 2  # frames of a tier
TEXT = np.array([[3, 1, 6, 2], [5, 4, 0, 0]], np.int32)
# Numbers of tiers, their cells, whether they are conditioned on singers, whether they are told what to sing, and
# whether they read a text.
TIERS = [
    (1, "gru", True, False, False),
    (1, "lstm", False, True, False),
    (1, "lstm", True, False, True),
    (1, "gru", False, True, True),
    (2, "lstm", True, True, False),
    (3, "lstm", False, False, False),
    (4, "gru", False, True, False),
    (5, "lstm", True, False, False),
    (6, "lstm", False, False, False),
]
MODELS = (1, 2, 3, 6)  # numbers of tiers in a model


def size(tiers):
    """Frames and bands of whole spectrograms."""
    return tuple(first * divisor for first, divisor in zip(FIRST, divisors(tiers), strict=True))


def make_tier(number, cell="lstm", singers=False, sung=False, text=False):
    tier = Tier(
        bands=shape(number, number, *size(number)).bands,
        layers=2,
        hidden=6,
        num_components=3,
        min_sigma=0.02,
        cell=cell,
        feature_layers=0 if number == 1 else 1,
        singers=SINGERS if singers else 0,
        melody=sung,
        phonemes=PHONEMES if sung else 0,
        lookahead=LOOKAHEAD if sung else 0,
        text=SYMBOLS if text else 0,
        text_speed=0.5,
    )
    # Far from its small initial weights, so that every path carries weight.
    rng = np.random.default_rng(7)
    tier.set_weights([rng.normal(scale=0.5, size=w.shape).astype("float32") for w in tier.get_weights()])
    return tier


def inputs(x, number, tiers):
    """Inputs of a tier from whole spectrograms."""
    singers = np.arange(x.shape[0], dtype=np.int32) % SINGERS
    ahead = LOOKAHEAD * frame_rows(number, tiers).step
    return inputs_and_target(x, singers, TierIndex(number, tiers), sung(x.shape[1] + ahead))[0] | {"text": TEXT}


def sung(frames):
    """Tracks of melody and phonemes for a batch."""
    rng = np.random.default_rng(3)
    size = BATCH, frames
    melody = np.stack([np.log(rng.uniform(100, 400, size)), rng.integers(-1, 2, size)], axis=-1)
    return {"melody": melody.astype(np.float32), "phonemes": rng.integers(0, PHONEMES, size, dtype=np.int32)}


@pytest.fixture(scope="module", params=TIERS, ids=str)
def placed(request):
    """A tier and its number."""
    number, *options = request.param
    return make_tier(number, *options), number


@pytest.fixture(scope="module")
def gradient(placed):
    """A function that gives the gradient of weighted outputs of a tier with respect to whole spectrograms."""
    tier, number = placed

    def output(both, others, weights):
        given = {"x": both[0], **others} | ({"context": both[1]} if number > 1 else {})
        return ops.sum(tier(given) * weights)

    compiled_gradient = gradients(output)

    def of_whole(x, weights, tiers):
        given = inputs(x, number, tiers)
        both = np.stack([given["x"], given.get("context", np.zeros_like(given["x"]))])
        others = {name: given[name] for name in ("singer", "melody", "phonemes", "text")}
        found = ops.convert_to_numpy(compiled_gradient(both, others, weights)[0])
        whole = np.zeros_like(x)
        for part, values in zip(target_and_context(whole, number, tiers), found, strict=True):  # views
            if part is not None:
                part[:] = values
        return whole

    return of_whole


def test_an_element_depends_on_exactly_what_comes_before_it(placed, gradient, rng):
    """All of the earlier tiers, and of its own the frames before and the bands below: there the gradient is not zero.

    It is exactly zero everywhere else, in later tiers and in the other spectrograms of a batch (sections 4 and 6).
    """
    number = placed[1]
    frames, bands = shape(number, number, *size(number))
    for t, f in {(0, 0), (0, bands - 1), (frames // 2, bands // 2), (frames - 1, 0), (frames - 1, bands - 1)}:
        for which in range(0, 9, 3):  # a mean, a deviation and a weight
            one = np.zeros((BATCH, frames, bands, 9), "float32")
            one[0, t, f, which] = 1
            for tiers in [tiers for tiers in MODELS if tiers >= number]:
                x = rng.normal(size=(BATCH, *size(tiers))).astype("float32")
                past = np.zeros(size(tiers), bool)
                parts = split(past, tiers)  # views
                for earlier in parts[: number - 1]:
                    earlier[:] = True
                parts[number - 1][:t] = True
                parts[number - 1][t, :f] = True
                reached = gradient(x, one, tiers) != 0
                np.testing.assert_array_equal(reached[0], past)
                assert not reached[1].any()


@pytest.fixture(scope="module")
def step(placed):
    """Goes on by one given frame."""
    tier = placed[0]
    return compiled(
        lambda state, frame, condition: tier.frame_step(state, lambda _, f: row(ops.transpose(frame), f), condition)
    )


def test_stepwise_pass_equals_teacher_forced_pass(placed, step, rng):
    """Fed the same values, steps from frame to frame give the mixtures of the parallel pass."""
    tier, number = placed
    given = inputs(rng.normal(size=(BATCH, *size(number))).astype("float32"), number, number)
    expected = ops.convert_to_numpy(compiled(tier)(given))
    condition = compiled(tier.condition)(given)
    state = tier.initial(BATCH, condition)
    for t in range(expected.shape[1]):
        state, parameters = step(state, given["x"][:, t], tier.condition_at(condition, t, t + 1))
        np.testing.assert_allclose(ops.convert_to_numpy(parameters), expected[:, t], atol=1e-4)
    assert np.abs(expected).max() > 0.5


def test_prefilling_with_a_beginning_equals_going_through_it_in_steps(placed, step, rng):
    """One pass over known frames leaves the state that steps through them leave."""
    tier, number = placed
    given = inputs(rng.normal(size=(BATCH, *size(number))).astype("float32"), number, number)
    known = given["x"].shape[1] - 1
    condition = compiled(tier.condition)(given)
    expected = tier.initial(BATCH, condition)
    for t in range(known):
        expected, _ = step(expected, given["x"][:, t], tier.condition_at(condition, t, t + 1))
    state = compiled(tier.prefill)(given["x"][:, :known], tier.condition_at(condition, 0, known))
    assert len(state.time_delayed) == 2
    assert len(state.centralised) == (2 if number == 1 else 0)
    np.testing.assert_array_equal(state.frame, given["x"][:, known - 1])
    for prefilled, stepped in zip(
        state.time_delayed + state.centralised, expected.time_delayed + expected.centralised, strict=True
    ):
        for a, b in zip(prefilled, stepped, strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-5)
    assert len(state.reading) == (tier.reader is not None)
    for prefilled, stepped in zip(state.reading, expected.reading, strict=True):
        read = [np.exp(ops.convert_to_numpy(reading.log_weights)) for reading in (prefilled, stepped)]
        np.testing.assert_allclose(*read, atol=1e-5)


def test_drawn_frames_feed_themselves(rng):
    """Sampling equals the teacher-forced pass over its own output, so every drawn value was used as context."""
    tier = make_tier(1)
    frames, bands = size(1)
    noise = rng.random(size=(frames, bands, BATCH)).astype("float32")
    step = compiled(lambda state, draws: tier.frame_step(state, lambda parameters, f: parameters[:, 0] + row(draws, f)))
    state, drawn, mixtures = tier.initial(BATCH), [], []
    for t in range(frames):
        state, parameters = step(state, noise[t])
        drawn.append(ops.convert_to_numpy(state.frame))
        mixtures.append(ops.convert_to_numpy(parameters))
    expected = ops.convert_to_numpy(compiled(tier)({"x": np.stack(drawn, axis=1)}))
    np.testing.assert_allclose(np.stack(mixtures, axis=1), expected, atol=1e-4)


@pytest.mark.parametrize("number", [1, 2])
def test_both_kernels_give_the_same_mixtures(number, rng, monkeypatch):
    """Stacks that run beside each other on an accelerator give what they give one after the other."""
    tier = make_tier(number, singers=True)
    given = inputs(rng.normal(size=(BATCH, *size(number))).astype("float32"), number, number)
    expected = ops.convert_to_numpy(compiled(tier)(given))
    run_together = Mock(wraps=stacks.run_together)
    monkeypatch.setattr(stacks, "run_together", run_together)
    monkeypatch.setattr(kernel_choice, "accelerated", lambda cell: True)
    np.testing.assert_allclose(ops.convert_to_numpy(compiled(tier)(given)), expected, atol=1e-5)
    layers = len(tier.time_delayed)
    assert run_together.call_count == layers + 1 + len(tier.features)


@pytest.mark.parametrize("number", [1, 2])
def test_the_singer_reaches_every_stack(number, rng):
    """Without any one of the projections of the embedding, a tier's output is another."""
    tier = make_tier(number, singers=True)
    given = inputs(rng.normal(size=(BATCH, *size(number))).astype("float32"), number, number)
    mixtures = compiled(tier)
    whole = ops.convert_to_numpy(mixtures(given))
    projections = [weight for weight in tier.weights if "/singer_to_" in weight.path]
    stacks = {"frame": 1, "features": 2}
    assert len(projections) == 3
    assert all(
        f"singer_to_{stack}" in "".join(w.path for w in projections) for stack, n in stacks.items() if n == number
    )
    for weight in projections:
        value = ops.convert_to_numpy(weight)
        weight.assign(0 * value)
        assert np.abs(ops.convert_to_numpy(mixtures(given)) - whole).max() > 1e-3, weight.path
        weight.assign(value)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_an_element_depends_on_what_is_sung_up_to_the_lookahead(number, rng):
    """A change of the melody or of the phoneme at one frame reaches the frames that it is ahead of, and later ones."""
    tier = make_tier(number, sung=True)
    given = inputs(rng.normal(size=(BATCH, *size(number))).astype("float32"), number, number)
    mixtures = compiled(tier)
    whole = ops.convert_to_numpy(mixtures(given))
    for name in ("melody", "phonemes"):
        for at in range(given[name].shape[1]):
            changed = given[name].copy()
            if name == "melody":
                changed[0, at] = np.log(300), 1 - max(changed[0, at, 1], 0)
            else:
                changed[0, at] = (changed[0, at] + 1) % PHONEMES
            difference = np.abs(ops.convert_to_numpy(mixtures({**given, name: changed})) - whole)
            reached = difference.max(axis=(2, 3)) > 0
            expected = np.arange(whole.shape[1]) >= at - tier.lookahead
            if number == 1:
                np.testing.assert_array_equal(reached[0], expected)
            else:  # through its context's features a later tier sees all frames, but no other way than by these
                assert reached[0][expected].all()
            assert not reached[1].any()


def test_tracks_of_a_tier_are_those_of_its_frames():
    frames = np.arange(16)
    for total in range(1, 7):
        for number in range(1, total + 1):
            whole = np.broadcast_to(frames[:, None], (16, 16))
            modelled = target_and_context(whole, number, total)[0][:, 0]
            np.testing.assert_array_equal(frames[frame_rows(number, total)], modelled)


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_sung_reaches_every_stack(number, rng):
    """Without any one of the projections of its features, a tier's output is another."""
    tier = make_tier(number, sung=True)
    given = inputs(rng.normal(size=(BATCH, *size(number))).astype("float32"), number, number)
    mixtures = compiled(tier)
    whole = ops.convert_to_numpy(mixtures(given))
    projections = [weight for weight in tier.weights if "/sung_to_" in weight.path or "/bands_to_" in weight.path]
    assert len(projections) == 5
    for weight in projections:
        value = ops.convert_to_numpy(weight)
        weight.assign(0 * value)
        assert np.abs(ops.convert_to_numpy(mixtures(given)) - whole).max() > 1e-3, weight.path
        weight.assign(value)


def test_the_alignment_depends_on_earlier_frames_and_on_the_text_alone(rng):
    tier = make_tier(1, text=True)
    frames, bands = size(1)
    x = rng.normal(size=(BATCH, frames, bands)).astype("float32")
    alignment = compiled(tier.alignment)
    whole = ops.convert_to_numpy(alignment({"x": x, "text": TEXT}))
    np.testing.assert_allclose(whole.sum(axis=-1), 1, atol=1e-5)
    assert not whole[TEXT[:, None].repeat(frames, axis=1) == 0].any()
    for t in range(frames - 1):
        changed = x.copy()
        changed[0, t] += 1
        reached = np.abs(ops.convert_to_numpy(alignment({"x": changed, "text": TEXT})) - whole).max(axis=-1) > 0
        assert reached[0, t + 1] and not reached[0, : t + 1].any() and not reached[1].any()
    other = TEXT.copy()
    other[0, 2] = 4
    difference = np.abs(ops.convert_to_numpy(alignment({"x": x, "text": other})) - whole).max(axis=(1, 2))
    assert difference[0] > 0 and difference[1] == 0


@pytest.mark.parametrize("stack", ["time", "frequency", "frame"])
def test_the_text_reaches_every_stack(stack, rng):
    """Without any one of the projections of its contexts, a tier's output is another."""
    tier = make_tier(1, text=True)
    given = inputs(rng.normal(size=(BATCH, *size(1))).astype("float32"), 1, 1)
    mixtures = compiled(tier, tier.weights)
    whole = ops.convert_to_numpy(mixtures(given))
    [projection] = [weight for weight in tier.weights if f"/text_to_{stack}/" in weight.path]
    projection.assign(0 * ops.convert_to_numpy(projection))
    assert np.abs(ops.convert_to_numpy(mixtures(given)) - whole).max() > 1e-3


def test_every_symbol_reaches_all_frames_of_its_own_spectrogram(rng):
    tier = make_tier(1, text=True)
    given = inputs(rng.normal(size=(BATCH, *size(1))).astype("float32"), 1, 1)
    mixtures = compiled(tier, tier.weights)
    whole = ops.convert_to_numpy(mixtures(given))
    for at in range(TEXT.shape[1]):
        changed = TEXT.copy()
        changed[0, at] = changed[0, at] % (SYMBOLS - 1) + 1
        reached = np.abs(ops.convert_to_numpy(mixtures({**given, "text": changed})) - whole).max(axis=(2, 3)) > 0
        assert reached[0].all() and not reached[1].any()


def test_an_unknown_text_adds_nothing(rng):
    """A tier that is given no text is the tier without what the contexts add, however much padding it is given."""
    tier = make_tier(1, text=True)
    given = inputs(rng.normal(size=(BATCH, *size(1))).astype("float32"), 1, 1)
    mixtures = compiled(tier, tier.weights)
    unknown = ops.convert_to_numpy(mixtures(given | tier.unknown(BATCH)))
    longer = ops.convert_to_numpy(mixtures(given | {"text": np.zeros_like(TEXT)}))
    for weight in tier.weights:
        if "/text_to_" in weight.path:
            weight.assign(0 * ops.convert_to_numpy(weight))
    for other in (longer, mixtures(given)):
        np.testing.assert_allclose(unknown, ops.convert_to_numpy(other), atol=1e-6)


def test_only_a_first_tier_reads_a_text():
    with pytest.raises(ValueError, match="text: only a first tier"):
        make_tier(2, text=True)
    with pytest.raises(ValueError, match="reads no text"):
        make_tier(1).alignment({})


def test_an_unknown_melody_is_not_a_silent_one(rng):
    tier = make_tier(1, sung=True)
    given = inputs(rng.normal(size=(BATCH, *size(1))).astype("float32"), 1, 1)
    outputs = []
    for voicing in (UNKNOWN, 0.0, 1.0):
        given["melody"][..., 1] = voicing
        outputs.append(ops.convert_to_numpy(compiled(tier)(given)))
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(outputs, [*outputs[1:], outputs[0]], strict=True))


def test_initial_states_are_trained():
    """Table 1: every recurrent layer's, and the output depends on each."""
    tier = make_tier(1)
    x = np.zeros((1, *size(1)), "float32")
    states = [weight for weight in tier.trainable_weights if weight.path.endswith("initial_state")]
    assert len(states) == 2 * (3 + 1 + 1)
    found = gradients(lambda x: ops.sum(tier({"x": x}) ** 2), states)(x)[1:]
    assert all(np.abs(ops.convert_to_numpy(gradient)).max() > 0 for gradient in found)


@pytest.mark.parametrize("number", [1, 2])
def test_config_round_trip(number):
    tier = make_tier(number, "gru", singers=True, text=number == 1)
    twin = Tier.from_config(tier.get_config())
    assert [w.shape for w in twin.weights] == [w.shape for w in tier.weights]
    assert [w.path for w in twin.weights] == [w.path for w in tier.weights]
