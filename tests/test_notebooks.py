"""The lessons run, as scripts and as notebooks, and the committed notebooks are what their sources say."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SOURCES = sorted((NOTEBOOKS / "src").glob("*.py"))
SECONDS = 120  # each should take less than 30; this is for a machine that is busy

EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=int(sys.argv[2]), kernel_name="python3").execute()
print(sum(cell.cell_type == "code" and cell.execution_count is not None for cell in notebook.cells))
"""


@pytest.fixture
def build():
    need("jupytext")
    spec = importlib.util.spec_from_file_location("build", NOTEBOOKS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(arguments, folder):
    """Run Python in an empty folder without a screen; what it printed."""
    settings = {"MPLBACKEND": "Agg", "IPYTHONDIR": str(folder / ".ipython"), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_there_are_lessons():
    assert [source.stem for source in SOURCES][:2] == ["01_gates_and_the_chain_rule", "02_two_layer_net"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_source_runs_as_a_script(source, tmp_path):
    wrong = ("invalid value", "divide by zero", "overflow")  # setup.cfg says why not of these
    not_of = [f"-Wignore:{kind} encountered in matmul:RuntimeWarning" for kind in wrong]
    assert run(["-Werror::RuntimeWarning", "-Werror::UserWarning", *not_of, source], tmp_path)
    assert [path for path in tmp_path.iterdir() if path.name != ".ipython"] == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_runs_from_start_to_end(source, tmp_path):
    need("nbclient")
    need("ipykernel")
    notebook = NOTEBOOKS / f"{source.stem}.ipynb"
    code_cells = sum(cell["cell_type"] == "code" for cell in json.loads(notebook.read_bytes())["cells"])
    assert int(run(["-c", EXECUTE, notebook, SECONDS], tmp_path)) == code_cells > 0


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_lesson_says_what_it_is_for_and_how_long_it_takes(source):
    opening = source.read_text(encoding="utf-8").split("# %%")[1]
    assert opening.startswith(" [markdown]\n# # ")
    assert "**Goals.**" in opening and "**Time needed.**" in opening


def test_committed_notebooks_are_what_the_sources_say(build, capsys):
    assert build.main(["--check"]) == 0, capsys.readouterr().out


def test_notebooks_have_no_outputs_and_are_valid(build):
    import nbformat

    for path in NOTEBOOKS.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert not any(cell.get("outputs") for cell in notebook.cells)
        assert b"\r" not in path.read_bytes()


def test_building_is_deterministic_and_ids_are_unique(build):
    text = "# %% [markdown]\n# Grüße\n\n# %%\nx = 1\n\n# %%\nx = 1\n"
    assert build.build(text) == build.build(text)
    cells = json.loads(build.build(text))["cells"]
    assert [cell["source"] for cell in cells] == [["Grüße"], ["x = 1"], ["x = 1"]]
    assert cells[2]["id"] == f"{cells[1]['id']}-2"


def test_check_notices_what_is_missing_stale_or_an_orphan(build, tmp_path, capsys):
    (tmp_path / "src").mkdir()
    source, notebook = tmp_path / "src" / "a.py", tmp_path / "a.ipynb"
    source.write_text("# %%\n1 + 1\n")
    check = ["--check", "--folder", str(tmp_path)]
    assert build.main(check) == 1 and not notebook.exists()
    assert build.main(check[1:]) == 0 and build.main(check) == 0
    source.write_text("# %%\n1 + 2\n")
    assert build.main(check) == 1
    assert build.main(check[1:]) == 0
    (tmp_path / "b.ipynb").write_bytes(notebook.read_bytes())
    assert build.main(check) == 1
    assert "b.ipynb: has no source" in capsys.readouterr().out
