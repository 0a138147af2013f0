"""Make the notebooks from their sources: src/*.py (py:percent) are edited, *.ipynb are built and committed.

python notebooks/build.py            write them
python notebooks/build.py --check    write nothing; exit with 1 if one is missing, stale, or has no source

The same source gives the same bytes: jupytext draws random cell ids and records its own version, so both are
replaced. Needs jupytext (pip install -e ".[notebooks]").
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def build(text: str) -> bytes:
    """The notebook of a py:percent source, without outputs."""
    import jupytext

    seen: Counter[str] = Counter()
    cells = []
    for cell in jupytext.reads(text, fmt="py:percent").cells:
        name = hashlib.sha256(f"{cell.cell_type}\0{cell.source}".encode()).hexdigest()[:12]
        seen[name] += 1
        made: dict[str, Any] = {
            "cell_type": cell.cell_type,
            "id": name if seen[name] == 1 else f"{name}-{seen[name]}",
            "metadata": {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {},
            "source": cell.source.splitlines(keepends=True),
        }
        if cell.cell_type == "code":
            made |= {"execution_count": None, "outputs": []}
        cells.append(dict(sorted(made.items())))
    notebook = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def main(arguments: list[str] | None = None) -> int:
    """Build or check all notebooks; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing, exit with 1 on any difference")
    parser.add_argument("--folder", type=Path, default=HERE, help="where src/ and the notebooks are")
    options = parser.parse_args(arguments)
    wanted = {
        options.folder / f"{source.stem}.ipynb": build(source.read_text(encoding="utf-8"))
        for source in sorted((options.folder / "src").glob("*.py"))
    }
    present = {path: path.read_bytes() for path in sorted(options.folder.glob("*.ipynb"))}
    changed = [path for path, content in wanted.items() if present.get(path) != content]
    orphans = [path for path in present if path not in wanted]
    for path in changed:
        print(f"{path.name}: {'differs from its source' if options.check else 'built'}")
        if not options.check:
            path.write_bytes(wanted[path])
    for path in orphans:
        print(f"{path.name}: has no source in src/")
    return 1 if orphans or (options.check and changed) else 0


if __name__ == "__main__":
    sys.exit(main())
