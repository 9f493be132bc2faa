"""The helpers of the benchmarks."""

import json

from bench.common import Claim, alternate, peak_memory, report


def test_a_claim_is_met_on_the_right_side_of_its_target():
    fast = Claim.at_least(2, "speed", [1.0, 3.0, 2.5], "×")
    assert (fast.value, fast.met, fast.spread, fast.target) == (2.5, True, (1.0, 3.0), "at least 2")
    assert not Claim.at_most(2, "time", [1.0, 3.0, 2.5], "s").met


def test_the_last_line_of_a_report_is_json(capsys):
    report(Claim.at_most(2, "time", [1.0, 1.5], "s"), Claim.at_most(2, "memory", [3.0], "MB"))
    claims = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(claim["name"], claim["met"]) for claim in claims] == [("time", True), ("memory", False)]
    assert set(claims[0]) == {"name", "value", "unit", "target", "met", "spread"}


def test_sides_are_measured_in_turn():
    order = []
    alternate(2, lambda: order.append("a") or 0.0, lambda: order.append("b") or 0.0)
    assert order == ["a", "b", "a", "b"]


def test_peak_memory_counts_children_and_what_was_let_go(tmp_path):
    child = "import time; x = bytes([1]) * 80_000_000; time.sleep(0.5); del x; time.sleep(0.2)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert 80 < peak_memory("-c", parent, cwd=tmp_path) < 140
