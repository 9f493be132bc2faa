"""DVC in a folder with a small dvc.yaml: plan, status, running, errors, versions."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline import graph
from pipeline.process_tree import end_process_trees, processes_with

LA = hashlib.md5(b"la", usedforsecurity=False).hexdigest()


def run(root: Path, stage: str, log: Callable[[str], object] = print) -> bool:
    return graph.reproduce(root, stage, force=False, variables={}, log=log)


def test_plan_has_the_stages_that_a_target_needs_in_order(workspace: Path) -> None:
    assert list(graph.plan(workspace, "train@tier-2")) == ["first", "train@tier-2"]
    assert list(graph.plan(workspace, "train")) == ["first", "train@tier-1", "train@tier-2"]
    assert graph.plan(workspace, None) == {
        "first": [],
        "train@tier-1": ["first"],
        "train@tier-2": ["first"],
        "evaluate": ["train@tier-1", "train@tier-2"],
    }


def test_plan_names_stages_alike_from_any_folder(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(graph.plan(workspace, "first")) == ["first"]


def test_unknown_target_is_named_with_the_stages_there_are(workspace: Path) -> None:
    with pytest.raises(ValueError, match=r"'tain'.*evaluate, first, train@tier-1, train@tier-2"):
        graph.plan(workspace, "tain")


def test_inputs_are_the_files_that_no_stage_makes(workspace: Path) -> None:
    assert graph.inputs(workspace) == ["corpus", "evaluate.py", "first.py", "params.yaml", "tier.py"]


def test_a_stage_runs_once_and_its_versions_are_read(workspace: Path) -> None:
    lines: list[str] = []
    assert "out/first.txt" in graph.changes(workspace, "first")
    assert run(workspace, "first", lines.append)
    assert "singing" in lines
    assert not any("git add" in line for line in lines)
    assert graph.changes(workspace, "first") == ""
    assert graph.outputs(workspace, "first") == [graph.Output("out/first.txt", LA, size=2, files=1, cached=True)]


def test_start_up_notices_of_tensorflow_are_left_out(workspace: Path) -> None:
    (workspace / "first.py").write_text(
        "print('I0000 00:00:1.5 7 port.cc:153] oneDNN', 'E0000 00:00:1.5 7 no driver', sep='\\n')\nraise SystemExit(1)"
    )
    lines: list[str] = []
    with pytest.raises(graph.DvcFailed, match=r"^first: E0000 00:00:1.5 7 no driver$"):
        run(workspace, "first", lines.append)
    assert "E0000 00:00:1.5 7 no driver" in lines
    assert not any("oneDNN" in line for line in lines)


PRINTS_BYTES = r"""
import sys
sys.stdout.buffer.write(b"\rslice: 1 of 2\n\rslice: 2 of 2\n\n  \xc3\xa4\xff\r\nthe end\n")
sys.exit(1)
"""


def test_lines_are_logged_without_carriage_returns_and_empty_lines(workspace: Path) -> None:
    """Progress bars begin their lines with a carriage return; a stage may print bytes that are not UTF-8."""
    (workspace / "first.py").write_text(PRINTS_BYTES)
    lines: list[str] = []
    with pytest.raises(graph.DvcFailed) as failed:
        run(workspace, "first", lines.append)
    printed = ["slice: 1 of 2", "slice: 2 of 2", "  ä\ufffd", "the end"]
    assert lines[2:6] == printed
    assert str(failed.value) == "first: " + "\n".join(printed)


def test_outputs_of_an_earlier_run_are_restored_without_work(workspace: Path) -> None:
    run(workspace, "first")
    (workspace / "out/first.txt").unlink()
    assert not run(workspace, "first")
    assert (workspace / "out/first.txt").read_text() == "la"


def test_the_error_of_a_failed_stage_has_its_own_last_lines(workspace: Path) -> None:
    (workspace / "first.py").write_text("import sys; print('tuning'); sys.exit('corpus/a.wav: not audio')")
    with pytest.raises(graph.DvcFailed) as failed:
        run(workspace, "first")
    assert str(failed.value) == "first: tuning\ncorpus/a.wav: not audio"


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_the_error_of_a_killed_stage_names_the_signal(
    workspace: Path, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", shell)  # DVC runs stages in it
    (workspace / "first.py").write_text("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(graph.DvcFailed, match="killed by SIGKILL"):
        run(workspace, "first")


def test_a_lock_of_another_process_is_retryable(workspace: Path) -> None:
    (workspace / "first.py").write_text(
        "import time; from pathlib import Path\nPath('began').touch(); time.sleep(60)\n"
    )
    with subprocess.Popen(graph.command("repro", "first"), cwd=workspace, env=graph.environment()) as other:
        try:
            while not (workspace / "began").exists():
                assert other.poll() is None
            with pytest.raises(graph.Retryable, match=f"PID {other.pid}"):
                run(workspace, "first")
        finally:
            end_process_trees(psutil.Process(other.pid))


def test_a_lock_table_that_a_killed_dvc_left_incomplete_is_removed(workspace: Path) -> None:
    table = workspace / ".dvc" / "tmp" / "rwlock"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("")
    with pytest.raises(graph.DvcFailed, match="rwlock"):
        graph.changes(workspace, "first")
    lines: list[object] = []
    graph.remove_broken_lock_table(workspace, lines.append)
    assert len(lines) == 1 and str(table) in str(lines[0])
    assert graph.changes(workspace, "first")  # it runs again
    graph.remove_broken_lock_table(workspace, lines.append)
    assert len(lines) == 1 and table.exists()  # a complete table stays


def test_no_stage_outlives_a_log_that_fails(workspace: Path) -> None:
    (workspace / "first.py").write_text("import time; print('singing'); time.sleep(60)")

    def log(line: str) -> None:
        if line == "singing":
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        graph.reproduce(workspace, "first", force=False, variables={"MELNET_TEST_RUN": str(workspace)}, log=log)
    assert processes_with("MELNET_TEST_RUN", str(workspace)) == []


def test_metrics_and_their_difference_are_those_of_the_stages_asked_for(workspace: Path) -> None:
    assert graph.metrics(workspace, ["evaluate"]) == {}
    assert graph.metrics_difference(workspace, ["evaluate"]) == ""
    subprocess.run(graph.command("repro", "--quiet"), cwd=workspace, env=graph.environment(), check=True)
    plan = graph.plan(workspace, "evaluate")
    assert graph.metrics(workspace, plan) == {"score.json": {"loss": 1.5}}
    head, rule, row = graph.metrics_difference(workspace, plan).splitlines()
    assert head.startswith("| Path") and rule.startswith("|--")
    assert [cell.strip() for cell in row.split("|")[1:3]] == ["score.json", "loss"]
    assert graph.metrics(workspace, ["first"]) == {}
    assert graph.metrics_difference(workspace, ["first"]) == ""


def test_only_network_errors_of_a_push_are_retryable(workspace: Path) -> None:
    run(workspace, "first")
    assert graph.default_remote(workspace) == ""
    subprocess.run(
        graph.command("remote", "add", "-d", "store", "http://127.0.0.1:9/nobody"), cwd=workspace, check=True
    )
    with pytest.raises(graph.Retryable, match="Cannot connect to host"):
        graph.push(workspace, "first", print)
    blocked = workspace / "file"
    blocked.touch()
    subprocess.run(graph.command("remote", "modify", "store", "url", str(blocked / "below")), cwd=workspace, check=True)
    with pytest.raises(graph.DvcFailed):
        graph.push(workspace, "first", print)


def test_push_reaches_the_default_remote(workspace: Path, tmp_path: Path) -> None:
    run(workspace, "first")
    subprocess.run(graph.command("remote", "add", "-d", "store", str(tmp_path / "store")), cwd=workspace, check=True)
    assert graph.default_remote(workspace) == f"store ({tmp_path / 'store'})"
    graph.push(workspace, "first", print)
    assert (tmp_path / "store/files/md5" / LA[:2] / LA[2:]).read_text() == "la"


def test_environment_puts_this_python_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    assert graph.environment()["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/usr/bin"
