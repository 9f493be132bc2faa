"""What TensorFlow prints on a stage's stderr."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHILE_LOADING = re.compile(
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    # On processors for which oneDNN is switched on.
    r"|I0000 \S+ +\d+ port\.cc:\d+\] oneDNN custom operations are on\. .*"
    r"|I0000 \S+ +\d+ cudart_stub\.cc:\d+\] Could not find cuda drivers on your machine, GPU will not be used\."
)
LOADED = "-- loaded"
# A training step compiled by XLA: without the log level, TensorFlow reports its start, XLA and devices.
TRAINS = f"""
import os, stages, keras, numpy
os.write(2, b"{LOADED}\\n")
model = keras.Sequential([keras.layers.Dense(3)])
model.compile("adam", "mse", jit_compile=True)
model.fit(numpy.zeros((8, 4)), numpy.zeros((8, 3)), verbose=0)
os.write(2, b"W0000 a warning\\n")
"""


def run(code, tmp_path, **variables):
    """Run code in a process of its own, without a log level from outside."""
    outside = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment = outside | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "KERAS_BACKEND": "tensorflow"} | variables
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="TensorFlow tells more where there is a GPU")
def test_tensorflow_prints_a_few_lines_while_it_is_loaded_and_none_afterwards(tmp_path):
    done = run(TRAINS, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    loaded = lines.index(LOADED)
    assert loaded <= 6
    assert [line for line in lines[:loaded] if not WHILE_LOADING.fullmatch(line)] == []
    assert lines[loaded + 1 :] == ["W0000 a warning"]


@pytest.mark.parametrize(
    ("package", "last_line"),
    [
        ("raise ImportError('no such library')", "ImportError: no such library"),
        ("import os\nos.write(2, b'F0000 no AVX on this CPU\\n')\nos.abort()", "F0000 no AVX on this CPU"),
        ("import os\nos.write(2, b'I0000 a notice\\nW0000 a warning\\n')", "W0000 a warning"),
    ],
)
def test_nothing_that_is_printed_while_it_is_loaded_is_held_back(tmp_path, package, last_line):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text(package)
    assert run("import stages, tensorflow", tmp_path).stderr.splitlines()[-1] == last_line


def test_a_log_level_set_by_the_user_is_kept(tmp_path):
    code = "import os, stages; os.write(2, os.environ['TF_CPP_MIN_LOG_LEVEL'].encode())"
    assert run(code, tmp_path, TF_CPP_MIN_LOG_LEVEL="0").stderr == "0"
    assert run(code, tmp_path).stderr == "3"
