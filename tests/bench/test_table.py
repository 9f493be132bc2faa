"""The README's performance table is what was measured."""

import json
from pathlib import Path

import pytest

from bench import scale
from bench.all import RESULTS, SINGING
from bench.quality import asked, samples, vocoder
from bench.table import table

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_a_table():
    claim = {"module": "graph", "name": "start", "value": 1.234, "unit": "s", "target": "at most 1", "met": False}
    lines = table(
        {
            "machine": {"processor": "a CPU", "cores": 2},
            "versions": {"python": "3.11"},
            "claims": [claim | {"spread": [1.0, 2000.4]}],
        }
    ).splitlines()
    assert lines[2] == "| start | 1.23 s (1 to 2,000) | at most 1 s | **no** | `bench.graph` |"
    assert lines[-1] == "Measured on 2 cores of a CPU, with python 3.11."


@pytest.mark.parametrize(("name", "results"), [("bench", RESULTS), ("singing", SINGING)])
def test_the_readme_shows_the_results(name, results):
    text = README.read_text(encoding="utf-8")
    shown = text.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]
    assert shown == table(json.loads(results.read_text(encoding="utf-8")))


def test_the_docs_show_what_an_archive_takes():
    text = (ROOT / "docs/distributed.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- scale -->\n")[2].partition("\n<!-- /scale -->")[0]
    assert shown == scale.table(json.loads(scale.RESULTS.read_text(encoding="utf-8")))


@pytest.mark.parametrize(("name", "bench"), [("vocoder", vocoder), ("samples", samples), ("asked", asked)])
def test_the_readme_shows_the_quality(name, bench):
    text = README.read_text(encoding="utf-8")
    assert text.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0] == bench.table()
