"""The README's code runs, and prints the numbers that its comments promise."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_python_blocks_print_what_they_say(code, capsys):
    promised = re.findall(r"# -> (.*)", code)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert promised, "a block without a promised number"
    for line in promised:
        assert line in printed


def test_the_first_example_is_short():
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) < 15


def test_the_two_commands_are_there():
    text = README.read_text()
    assert "pip install -e . && backhand train" in text
    assert 'pip install -e ".[test]" && pytest' in text


def test_pictures_and_links_to_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        if not target.startswith("http"):
            assert (README.parent / target).exists(), target
