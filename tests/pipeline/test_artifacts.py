"""Artifacts: keys that Prefect takes, tables, links to the version that was made."""

from pathlib import Path

import pytest

from pipeline import artifacts
from pipeline.graph import Output


def test_keys_have_the_form_that_prefect_accepts() -> None:
    assert artifacts.artifact_key("train@tier-2") == "train-tier-2"
    assert artifacts.artifact_key("metrics", "sub/dvc.yaml:Train") == "metrics-sub-dvc-yaml-train"


def test_table_says_where_each_output_is() -> None:
    outputs = [Output("models/a.h5", "1a", 2500, 1, cached=True), Output("metrics/a.json", "2b", 20, 1, cached=False)]
    *_, weights, metrics = artifacts.versions_table(outputs, "store (s3://b)").splitlines()
    assert weights == "| models/a.h5 | `1a` | 2.5 kB | 1 | store (s3://b) |"
    assert metrics == "| metrics/a.json | `2b` | 20 Bytes | 1 | kept by Git |"
    assert "not pushed" in artifacts.versions_table(outputs, "")


def test_links_keep_showing_the_version_they_were_made_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/a.png").write_bytes(b"old")
    (tmp_path / "samples/a.wav").write_bytes(b"la")
    served = tmp_path / "served"
    monkeypatch.setenv("MELNET_FILES", str(served))
    monkeypatch.setenv("MELNET_FILES_URL", "http://127.0.0.1:4201")
    lines = artifacts.links(tmp_path, [Output("samples", "3c.dir", 5, 2, cached=True)])
    (tmp_path / "samples/a.png").write_bytes(b"new")
    assert "![samples/a.png](http://127.0.0.1:4201/3c/a.png)" in lines
    assert (served / "3c/a.png").read_bytes() == b"old"


def test_previews_of_a_training_are_linked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = [Output("models/tier-1.weights.h5", "1a", 2500, 1, cached=True)]
    assert artifacts.preview_link(tmp_path, "train@tier-1", outputs) == []
    previews = tmp_path / "logs/tier-1/previews"
    previews.mkdir(parents=True)
    (previews / "index.html").write_text("la")
    (previews / "epoch-0005-1.wav").write_bytes(b"la")
    assert artifacts.preview_link(tmp_path, "slice", outputs) == []
    served = tmp_path / "served"
    monkeypatch.setenv("MELNET_FILES", str(served))
    monkeypatch.setenv("MELNET_FILES_URL", "http://127.0.0.1:4201")
    [_, link] = artifacts.preview_link(tmp_path, "train@tier-1", outputs)
    assert link.endswith("(http://127.0.0.1:4201/1a-previews/index.html)")
    assert (served / "1a-previews/epoch-0005-1.wav").read_bytes() == b"la"


def test_without_a_file_server_links_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MELNET_FILES", raising=False)
    (tmp_path / "curve.png").touch()
    (tmp_path / "weights.h5").touch()
    outputs = [Output("curve.png", "1a", 0, 1, cached=True), Output("weights.h5", "1b", 0, 1, cached=True)]
    assert artifacts.links(tmp_path, outputs) == ["", f"[curve.png](file://{tmp_path}/curve.png)"]
