"""`python -m benchmarks NAME [ARGUMENTS]` runs a benchmark; `--list` lists them.

Each prints a table and writes JSON to benchmarks/results. They import the product and `tests.toys`.
"""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent


def benchmarks() -> dict[str, tuple[str, str]]:
    """Module and first line of the docstring of every benchmark, by name."""
    named = {}
    for path in sorted(_FOLDER.glob("[a-z]*/[a-z]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            summary = (ast.get_docstring(tree) or "").splitlines()[0]
            named[path.stem] = (f"benchmarks.{path.parent.name}.{path.stem}", summary)
    return named


def main(arguments: list[str]) -> int:
    """Run the benchmark in this process's place; the exit code is 2 for a name that is none."""
    named = benchmarks()
    if arguments[:1] in ([], ["--list"], ["--help"]):
        print("python -m benchmarks NAME [ARGUMENTS]; --help after a name shows its arguments\n")
        for name, (module, summary) in named.items():
            print(f"{module.split('.')[1]:<14} {name:<28} {summary}")
        return 0
    if arguments[0] not in named:
        print(f"there is no benchmark {arguments[0]}; --list lists them", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", named[arguments[0]][0], *arguments[1:]]
    return os.execv(sys.executable, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
