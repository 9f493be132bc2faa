"""A repository with a small graph of its own, shaped as the project's, and Prefect's own test server."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.testing.utilities import prefect_test_harness

from pipeline import graph
from pipeline.gpu import LIMIT

DVC_YAML = """
stages:
  first:
    cmd: python first.py
    deps: [first.py, corpus]
    params: [first.words]
    outs: [out/first.txt]
  train:
    matrix: {tier: [tier-1, tier-2]}
    cmd: python tier.py ${item.tier}
    deps: [tier.py, out/first.txt]
    outs:
      - out/${item.tier}.txt
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py, out/tier-1.txt, out/tier-2.txt]
    outs: [pictures]
    metrics:
      - score.json: {cache: false}
plots:
  - pictures/curve.svg
"""

TIER_PY = """
import sys
from pathlib import Path
Path(f'out/{sys.argv[1]}.txt').write_text(sys.argv[1])
"""

EVALUATE_PY = """
from pathlib import Path
Path('pictures').mkdir()
Path('pictures/curve.svg').write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
Path('score.json').write_text('{"loss": 1.5}')
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A repository whose stages take no time."""
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "first.py").write_text(
        "from pathlib import Path\nprint('singing')\nPath('out/first.txt').write_text('la')\n"
    )
    (root / "tier.py").write_text(TIER_PY)
    (root / "evaluate.py").write_text(EVALUATE_PY)
    (root / "params.yaml").write_text("first:\n  words: 2  # of the song\n")
    (root / "corpus").write_text("la la")
    (root / "out").mkdir()
    (root / ".gitignore").write_text("/corpus\n")
    for command in (["git", "init", "-q"], graph.command("init", "-q"), ["git", "add", "-A"]):
        subprocess.run(command, cwd=root, check=True)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, "commit", "-qm", "start"], cwd=root, check=True)
    return root


@pytest.fixture(scope="session")
def server() -> Iterator[None]:
    """A server of these tests, with two slots of the limit."""
    with prefect_test_harness(server_startup_timeout=120):
        with get_client(sync_client=True) as client:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=2))
        yield
