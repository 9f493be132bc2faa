import dataclasses
import json

import numpy as np
import pytest

from melnet.audio.mel import MelSpec
from melnet.model_files import ModelError
from melnet.vocoder.saved import load_vocoder, save_vocoder


@pytest.fixture
def folder(tmp_path, small_vocoder):
    save_vocoder(tmp_path, small_vocoder, "griffin-lim")
    return tmp_path


def test_a_vocoder_comes_back_as_it_was(folder, small_vocoder):
    loaded, preferred = load_vocoder(folder, MelSpec(), [])
    values = np.random.default_rng(0).normal(0, 1, (1, 30, 32)).astype(np.float32)
    np.testing.assert_array_equal(loaded(values), small_vocoder(values))
    assert preferred == "griffin-lim" and loaded.config.hidden == small_vocoder.config.hidden


def test_equal_vocoders_are_equal_bytes(folder, small_vocoder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    save_vocoder(other, small_vocoder, "griffin-lim")
    for name in ("vocoder.json", "vocoder.weights.h5"):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_a_missing_vocoder_is_named(folder):
    (folder / "vocoder.weights.h5").unlink()
    with pytest.raises(ModelError, match=r"vocoder\.weights\.h5: No such file"):
        load_vocoder(folder, MelSpec(), [])
    (folder / "vocoder.json").unlink()
    with pytest.raises(ModelError, match=r"vocoder\.json: no such file"):
        load_vocoder(folder, MelSpec(), [])


def test_a_damaged_vocoder_is_named(folder):
    weights = folder / "vocoder.weights.h5"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=r"vocoder\.weights\.h5: damaged"):
        load_vocoder(folder, MelSpec(), [])
    (folder / "vocoder.json").write_text('{"format": 3}')
    with pytest.raises(ModelError, match=r"vocoder\.json: not understood"):
        load_vocoder(folder, MelSpec(), [])


def test_a_foreign_vocoder_is_named(folder):
    with pytest.raises(ModelError, match=r"vocoder\.json: for spectrograms of .*hop_length=512.*hop_length=256"):
        load_vocoder(folder, dataclasses.replace(MelSpec(), hop_length=256), [])
    with pytest.raises(ModelError, match=r"vocoder\.json: for the singers none, but the model has anna"):
        load_vocoder(folder, MelSpec(), ["anna"])
    content = json.loads((folder / "vocoder.json").read_text())
    content["config"]["hidden"] += 1
    (folder / "vocoder.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"vocoder\.weights\.h5: not the weights of this vocoder"):
        load_vocoder(folder, MelSpec(), [])
