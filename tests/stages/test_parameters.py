"""Every wrong value is refused by name, in one line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ruamel.yaml import YAML

from stages.parameters import RENAMED, ParamsError, load_params
from tests.params_file import edit_params

ROOT = Path(__file__).parents[2]


def test_the_projects_own_parameters_are_valid_and_immutable():
    params = load_params(ROOT / "params.yaml")
    assert params.mel.n_mels == 32
    with pytest.raises(ValidationError):
        params.mel.n_mels = 64


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("mel", "fmax", 12000.5),
        ("mel", "fmax", 200.0),
        ("mel", "fmin", -1.0),
        ("mel", "n_mels", 500),
        ("mel", "n_mels", 0),
        ("mel", "n_mels", 10**9),
        ("mel", "n_fft", 64),
        ("mel", "hop_length", 4096),
        ("mel", "floor", 0.0),
        ("slice", "frames", 0),
        ("slice", "frames", "50"),
        ("slice", "frames", 50.5),
        ("slice", "frames", True),
        ("slice", "valid", 0.95),
        ("slice", "test", 0.0),
        ("model", "num_components", 0),
        ("model", "min_sigma", 0.0),
        ("model", "tiers", {}),
        ("model", "tiers", {"tier-2": {"layers": 1, "hidden": 1}}),
        ("model", "tiers", {1: {"layers": 1, "hidden": 1}}),
        ("model", "tiers", {"tier-1": {"layers": 1, "hidden": 1}, "tier-3": {"layers": 1, "hidden": 1}}),
        ("model", "tiers", {"tier-1": {"layers": 1, "hidden": 1, "feature_layers": 1}}),
        ("model", "cell", "rnn"),
        ("model", "condition_on", "speaker"),
        ("model", "condition_on", ["melody", "words"]),
        ("model", "condition_on", ["melody", "melody"]),
        ("model", "condition_on", []),
        ("train", "learning_rate", "fast"),
        ("train", "learning_rate", float("nan")),
        ("train", "momentum", 1.0),
        ("train", "window_frames", 0),
        ("train", "windows_per_epoch", 0),
        ("train", "patience", 0),
        ("train", "lr_halving_epochs", 0),
        ("train", "ema_decay", 1.0),
        ("train", "epochs", None),
        ("train", "accumulate", 0),
        ("train", "precision", "float16"),
        ("generate", "precision", "mixed_bfloat16"),
        ("downsample", "max_pause_seconds", 0.0),
        ("downsample", "max_rejected", 1.5),
        ("generate", "temperature", -0.1),
        ("generate", "top_components", 0),
        ("generate", "prime", ""),
        ("generate", "prime_seconds", 0),
        ("generate", "singer", "anna"),  # of a model that knows no singers
        ("generate", "singer", []),
        ("generate", "temprature", 1.0),
        ("corpus", "path", ""),
        ("execution", "dask_scheduler", "10.0.0.5:8786"),
        ("execution", "dask_scheduler", ""),
        ("execution", "dask_scheduler", 8786),
        ("execution", "coordinator", "10.0.0.5"),
        ("execution", "coordinator", ":8476"),
        ("execution", "coordinator", "automatic"),
        ("execution", "processes", 0),
        ("execution", "index", -1),
    ],
)
def test_a_wrong_value_is_named(tmp_path, section, key, value):
    path = edit_params(tmp_path, {section: {key: value}})
    with pytest.raises(ParamsError) as error:
        load_params(path)
    message = str(error.value)
    assert message.startswith(f"{path}: {section}.")
    assert "\n" not in message
    if section != "mel" or key not in ("n_fft", "fmax"):  # checks of several values name the first of them
        assert key in message


def test_a_cluster_says_all_or_nothing_of_the_processes(tmp_path):
    load_params(edit_params(tmp_path, {"execution": {"coordinator": "auto"}}))
    with pytest.raises(ParamsError, match=r"execution\.coordinator: auto takes processes and index from the cluster"):
        load_params(edit_params(tmp_path, {"execution": {"coordinator": "auto", "processes": 2}}))


def tiers(count):
    return {f"tier-{number}": {"layers": 1, "hidden": 4} for number in range(1, count + 1)}


@pytest.mark.parametrize(
    ("count", "frames", "bands", "message"),
    [
        (4, 50, 32, r"slice\.frames: 50 is no multiple of 4, as 4 tiers need; the nearest: 48 or 52"),
        (3, 50, 33, r"mel\.n_mels: 33 is no multiple of 2, as 3 tiers need; the nearest: 32 or 34"),
        (6, 7, 32, r"slice\.frames: 7 is no multiple of 8, as 6 tiers need; the nearest: 8$"),
    ],
)
def test_sizes_that_the_tiers_cannot_divide_are_refused(tmp_path, count, frames, bands, message):
    changes = {"model": {"tiers": tiers(count)}, "slice": {"frames": frames}, "mel": {"n_mels": bands}}
    with pytest.raises(ParamsError, match=message):
        load_params(edit_params(tmp_path, changes))


def test_windows_that_the_tiers_cannot_divide_are_refused(tmp_path):
    changes = {"model": {"tiers": tiers(4)}, "slice": {"frames": 52}, "train": {"window_frames": 50}}
    message = r"train\.window_frames: 50 is no multiple of 4, as 4 tiers need; the nearest: 48 or 52"
    with pytest.raises(ParamsError, match=message):
        load_params(edit_params(tmp_path, changes))


@pytest.mark.parametrize(("windows", "nearest"), [(650, "640 or 656"), (7, "16")])
def test_an_epoch_that_is_no_whole_number_of_batches_is_refused(tmp_path, windows, nearest):
    message = rf"train\.windows_per_epoch: {windows} is no multiple of train\.batch_size: 16; the nearest: {nearest}$"
    with pytest.raises(ParamsError, match=message):
        load_params(edit_params(tmp_path, {"train": {"windows_per_epoch": windows, "batch_size": 16}}))


@pytest.mark.parametrize(("accumulate", "nearest"), [(3, "2 or 4"), (32, "16")])
def test_micro_batches_divide_a_batch(tmp_path, accumulate, nearest):
    message = rf"train\.accumulate: {accumulate} does not divide train\.batch_size: 16; the nearest: {nearest}$"
    with pytest.raises(ParamsError, match=message):
        load_params(edit_params(tmp_path, {"train": {"accumulate": accumulate, "batch_size": 16}}))


def test_one_singer_for_each_sample(tmp_path):
    changes = {"model": {"condition_on": "singer"}, "generate": {"count": 2, "singer": ["anna", "bo", "anna"]}}
    with pytest.raises(ParamsError, match=r"generate\.singer: 3 names for generate\.count: 2 samples"):
        load_params(edit_params(tmp_path, changes))


@pytest.mark.parametrize(
    ("condition_on", "conditions"),
    [(None, []), ("singer", ["singer"]), ("melody", ["melody"]), (["phonemes", "melody"], ["phonemes", "melody"])],
)
def test_conditions_are_a_word_or_a_list(tmp_path, condition_on, conditions):
    params = load_params(edit_params(tmp_path, {"model": {"condition_on": condition_on}}))
    assert params.model.conditions == conditions


def test_a_singer_needs_a_model_of_singers(tmp_path):
    changes = {"model": {"condition_on": ["melody"]}, "generate": {"singer": "anna"}}
    with pytest.raises(ParamsError, match=r"generate\.singer: 'anna' needs model\.condition_on: singer"):
        load_params(edit_params(tmp_path, changes))


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yaml")), ids=lambda path: path.name)
def test_ready_configurations_are_valid_and_say_what_params_yaml_says(path):
    yaml = YAML(typ="safe")
    ready, own = yaml.load(path), yaml.load(ROOT / "params.yaml")
    load_params(path)
    assert {section: list(values) for section, values in ready.items() if section != "model"} == {
        section: list(values) for section, values in own.items() if section != "model"
    }


@pytest.mark.parametrize("section", ["corpus", "mel", "train"])
def test_a_missing_or_unknown_section_is_named(tmp_path, section):
    path = tmp_path / "params.yaml"
    YAML().dump({name: values for name, values in PARAMS.items() if name != section}, path)
    with pytest.raises(ParamsError, match=rf"{section}: Field required"):
        load_params(path)
    YAML().dump(PARAMS | {"extra": {}}, path)
    with pytest.raises(ParamsError, match=r"extra: "):
        load_params(path)


@pytest.mark.parametrize("text", ["mel: [", "", "- 1", "\t"])
def test_a_file_that_is_no_mapping_is_named(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match=r"none\.yaml: cannot be read"):
        load_params(tmp_path / "none.yaml")


def test_numbers_are_read_as_dvc_reads_them(tmp_path):
    """YAML 1.2: 1e-3 is a number, and a whole number will do for a fraction."""
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace("7.0e-4", "1e-3").replace("fmin: 300.0", "fmin: 300"))
    params = load_params(path)
    assert params.train.learning_rate == 1e-3
    assert params.mel.fmin == 300


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_of_an_earlier_version_is_told_its_new_name(tmp_path, old, new):
    section, _, key = old.partition(".")
    values = YAML(typ="safe").load(ROOT / "params.yaml")[section]
    value = values[new.partition(".")[2]]
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace(f"  {new.partition('.')[2]}:", f"  {key}:"))
    with pytest.raises(ParamsError, match=rf"{section}\.{key}: is now called {new} \(it is {value}\)"):
        load_params(path)


PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(10**30), 10**30),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from([0, -1, 1e300, -1e-300, "1", "yes", "tcp://", 2**63, 10**400]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize(("section", "key"), [(section, key) for section in PARAMS for key in PARAMS[section]])
@settings(max_examples=40, deadline=None)
@given(value=anything)
def test_any_value_is_taken_as_it_is_or_refused_by_name(tmp_path_factory, section, key, value):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    content = {name: dict(values) for name, values in PARAMS.items()}
    content[section][key] = value
    YAML(typ="safe").dump(content, path)
    try:
        params = load_params(path)
    except ParamsError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        # Checks of several values name the first of them.
        assert f"{section}." in message or section in ("mel", "downsample", "slice", "model", "generate")
    else:
        taken = getattr(getattr(params, section), key)
        taken = taken.model_dump() if hasattr(taken, "model_dump") else taken
        if key != "tiers":
            # A whole number where a float belongs is taken as the nearest one.
            assert taken == (float(value) if isinstance(taken, float) else value)
            assert isinstance(value, bool) == isinstance(taken, bool)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0), change=st.binary(min_size=1, max_size=3), delete=st.integers(0, 40))
def test_any_damage_to_the_file_is_refused_or_means_a_valid_one(tmp_path_factory, at, change, delete):
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    content = (ROOT / "params.yaml").read_bytes()
    at %= len(content)
    path.write_bytes(content[:at] + change + content[at + delete :])
    try:
        load_params(path)
    except ParamsError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"\x00", b"[" * 5000, b"a: &a [*a]", b"a: 1\na: 2", b"!!python/object:os.system {}"]
)
def test_files_that_are_worse_than_wrong_are_named(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError, match=r"params\.yaml: "):
        load_params(path)
