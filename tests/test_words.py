"""README.md and docs/ say what is so: their commands are executed, and what they name exists."""

import re

import pytest
from ruamel.yaml import YAML

from stages.corpus.manifest import SCHEMA
from stages.report_page.summary import METRICS
from tests.small_model import write_model
from tests.words import ELSEWHERE, HERE, NOWHERE, PAGES, ROOT, SOURCES, all_commands, commands, paths

TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
SUFFIXES = ("csv", "h5", "html", "json", "md", "npz", "parquet", "png", "py", "yaml")
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
every_page = pytest.mark.parametrize("page", TEXTS)


def test_commands_of_a_page():
    text = "Try:\n```sh\nmake demo    # the demo\n# a comment\n$ dvc repro \\\n  train\n```\n\n```yaml\na: 1\n```\n"
    assert commands(text) == ["make demo", "dvc repro train"]


def test_every_command_is_executed_by_a_test_or_by_ci():
    known = {*HERE, *ELSEWHERE, *NOWHERE}
    assert not [command for command in all_commands() if command[1] not in known]
    assert known <= {command for _, command in all_commands()}, "a command that no page has any more"


def test_who_executes_a_command_exists():
    ci = (ROOT / ".ci/run").read_text().splitlines()
    for command, executed_by in ELSEWHERE.items():
        path, _, name = executed_by.partition("::")
        if name:
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M), executed_by
        else:
            assert command in ci


def test_python_examples_run(tmp_path, monkeypatch):
    write_model(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    examples = {page: "".join(PYTHON_BLOCK.findall(text)) for page, text in TEXTS.items()}
    assert {page for page, example in examples.items() if example} >= {"README.md", "docs/python.md"}
    for page, example in examples.items():
        exec(compile(example, page, "exec"), {})


@every_page
def test_make_has_every_target(page):
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)(?=`|\s+#|$)", TEXTS[page], re.M)) <= set(targets)


@every_page
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link:
            assert ((ROOT / page).parent / link.partition("#")[0]).exists(), link


@every_page
def test_files_of_the_project_exist(page):
    for path in paths(TEXTS[page], SOURCES):
        # docs/reliability.md names tests by their place below tests/.
        assert any(list(root.glob(path.removesuffix("/"))) for root in (ROOT, ROOT / "tests")), path


def test_files_of_the_annotated_tree_exist():
    blocks = re.findall(r"^```\w*\n(.*?)^```", TEXTS["README.md"], re.M | re.S)
    [tree] = [block for block in blocks if block.startswith("params.yaml")]
    names = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    assert set(re.findall(r"\w+\.py", tree)) <= names


@every_page
def test_settings_exist(page):
    text = PYTHON_BLOCK.sub("", TEXTS[page])
    for section, rest in re.findall(rf"(?<![\w/.-])({'|'.join(PARAMS)})\.([a-z][\w-]*(?:\.[\w-]+)*)", text):
        if rest.rpartition(".")[2] not in SUFFIXES:
            node = PARAMS[section]
            for part in rest.split("."):
                assert isinstance(node, dict) and part in node, f"{section}.{rest}"
                node = node[part]


def test_code_lives_where_the_equations_say():
    places = re.findall(r"`([\w/]+\.py)`\s\(((?:`\w+`,?\s?)+)\)", TEXTS["docs/model.md"])
    assert len(places) > 15
    for path, names in places:
        for name in re.findall(r"\w+", names):
            assert re.search(rf"^ *(def|class) {name}\b", (ROOT / path).read_text(), re.M), f"{path}: {name}"


def test_every_metric_and_column_is_defined():
    text = TEXTS["docs/formats.md"]
    assert not [name for name in (*METRICS, *SCHEMA.names) if f"`{name.rpartition('.')[2]}`" not in text]
