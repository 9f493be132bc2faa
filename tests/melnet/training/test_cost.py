"""What training takes, worked out beforehand, against figures that were measured or follow from the layers."""

import pytest

from melnet.audio.mel import MelSpec
from melnet.data.dataset import Normalisation
from melnet.model.tier import Tier
from melnet.saved import ModelConfig, TierConfig
from melnet.training.cost import cost, costs


def test_a_step_of_the_reference_tier_is_90_gflop():
    """4 layers of 64, K = 10, batch 16 of 50 x 32: what the benchmark of the training step divides by."""
    tier = Tier(bands=32, layers=4, hidden=64, num_components=10, min_sigma=0.02)
    found = cost(tier, 16, 50)
    assert found.flop / 1e9 == pytest.approx(90, rel=0.05)
    assert found.weights == tier.count_params()
    assert cost(tier, 32, 50).flop == 2 * found.flop


def test_memory_grows_with_what_is_kept_and_with_the_weights():
    small, deep, wide = (
        cost(Tier(bands=32, layers=layers, hidden=hidden, num_components=10, min_sigma=0.02), 16, 50).memory
        for layers, hidden in ((2, 64), (4, 64), (2, 128))
    )
    assert 1.9 < deep / small < 2.1
    assert 1.9 < wide / small < 2.3


def test_recomputing_takes_less_memory_for_the_same_flop():
    options = {"bands": 32, "layers": 2, "hidden": 32, "num_components": 5, "min_sigma": 0.02}
    kept, again = (cost(Tier(**options, recompute=recompute), 16, 50) for recompute in (False, True))
    assert 0.5 < again.memory / kept.memory < 0.8
    assert again.weights == kept.weights


def test_micro_batches_take_the_memory_of_their_windows_and_one_more_copy_of_the_weights():
    tier = Tier(bands=32, layers=2, hidden=64, num_components=10, min_sigma=0.02)
    whole, cut, small = cost(tier, 16, 50), cost(tier, 16, 50, accumulate=4), cost(tier, 4, 50)
    assert cut.memory == pytest.approx(small.memory + 4 * tier.count_params())
    assert cut.flop == whole.flop
    assert whole.peak_with(4) == cut.peak
    assert whole.fewest_micro_batches(whole.peak) == 1
    assert whole.fewest_micro_batches(cut.peak) == 4
    assert whole.fewest_micro_batches(whole.runtime) is None


THREE_TIERS = {f"tier-{number}": TierConfig(layers=2, hidden=16) for number in (1, 2, 3)}


def three_tiers(cell="lstm", singers=()):
    config = ModelConfig(
        mel=MelSpec(n_mels=64),
        frames=64,
        cell=cell,
        num_components=10,
        min_sigma=0.02,
        tiers=list(THREE_TIERS),
        singers=list(singers),
        normalisation=Normalisation.identity(64),
    )
    return costs(config, THREE_TIERS, batch_size=16)


def test_each_tier_has_its_shape():
    found = three_tiers()
    assert {name: tier.shape for name, tier in found.items()} == {
        "tier-1": (32, 32),
        "tier-2": (32, 32),
        "tier-3": (64, 32),
    }
    assert found["tier-2"].flop < found["tier-3"].flop


def test_a_gru_is_smaller_than_an_lstm_and_a_singer_adds_weights():
    plain, gru, singers = three_tiers(), three_tiers(cell="gru"), three_tiers(singers=["Anna", "Bo"])
    for name in plain:
        assert gru[name].weights < 0.85 * plain[name].weights
        assert plain[name].weights < singers[name].weights < 1.15 * plain[name].weights
