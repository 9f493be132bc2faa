"""What a stage's terminal is spared while TensorFlow starts, and what it is not."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NATIVE = """
import os
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
os.write(2, b"I0000 00:00:1795414455.200647   21216 port.cc:153] oneDNN custom operations are on.\\n")
os.write(2, b"W0000 00:00:1795414455.200647   21216 a.cc:1] a warning\\n")
os.write(2, b"E0000 00:00:1795414455.200647   21216 a.cc:2] an error\\n")
"""


def stderr(tmp_path, package, code):
    """Of code run with a package ``tensorflow`` that consists of this; without its path, since all is import."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text(NATIVE + package)
    search = f"{tmp_path}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": search}, capture_output=True, text=True
    )
    return done.stderr.splitlines()


def test_notices_are_left_out_and_the_rest_passes_in_its_order(tmp_path):
    package = "import sys\nprint('from Python', file=sys.stderr)\n"
    lines = stderr(
        tmp_path, package, "import stages, sys, tensorflow\nprint(tensorflow.__loader__, 'after', file=sys.stderr)"
    )
    assert [line.split("] ")[-1] for line in lines[:3]] == ["a warning", "an error", "from Python"]
    assert lines[3].endswith("after")
    assert "SourceFileLoader" in lines[3]
    assert len(lines) == 4


def test_after_the_import_stderr_is_as_it_was(tmp_path):
    lines = stderr(tmp_path, "", "import stages, os, tensorflow\nos.write(2, b'I0000 later\\n')")
    assert lines[-1] == "I0000 later"


def test_last_words_of_a_process_that_dies_are_heard(tmp_path):
    package = "os.write(2, b'F0000 no AVX on this CPU\\n')\nos.abort()\n"
    assert stderr(tmp_path, package, "import stages, tensorflow")[-1] == "F0000 no AVX on this CPU"


def test_an_import_that_fails_says_why(tmp_path):
    assert stderr(tmp_path, "raise ImportError('no such library')", "import stages, tensorflow")[-1] == (
        "ImportError: no such library"
    )


def test_without_grep_all_is_shown(tmp_path):
    lines = stderr(tmp_path, "", "import os\nos.environ['PATH'] = ''\nimport stages, tensorflow")
    assert len(lines) == 4
