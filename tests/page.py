"""Follow a page of docs/ as its reader would: write the files that it shows, run the commands, in the page's order."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w./-]+\.\w+)(, added)?\n")  # the first line of a block that is a file, or lines of one
ALIKE = 40  # characters in which two lines begin alike


def follow(page: str, folder: Path) -> str:
    """Follow docs/`page` in `folder` and return what its commands printed; AssertionError where one of them fails.

    The first line of a file's block is a comment with its path. Of lines `added` to a file, imports go before its own
    ones. A line that begins like one of the file's replaces that; others go behind the line that opens the registry,
    the only mapping or loop.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    quiet = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules"), "TOKENIZERS_PARALLELISM": "false"}
    environment = {**os.environ, **quiet, "PATH": path, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    printed = []
    for language, text in BLOCK.findall((ROOT / "docs" / page).read_text()):
        if named := FILE.match(text):
            _write(folder / named[1], text, bool(named[2]))
        elif language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", text]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{page}: {text}\n{done.stdout}\n{done.stderr}"
            printed.append(done.stdout)
        else:
            assert language == "text", f"{page}: a block that is neither a file nor a command:\n{text}"
    return "".join(printed)


def _write(path: Path, text: str, added: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not added:
        path.write_text(text)
        return
    lines, new = path.read_text().splitlines(), text.splitlines()[1:]
    imports = [line for line in new if line.startswith("from ")]
    entries = [line for line in new if line.strip() and line not in imports]
    for entry in reversed(entries):
        alike = [number for number, line in enumerate(lines) if line[:ALIKE] == entry[:ALIKE]]
        if alike:
            lines[alike[0]] = entry
        else:
            (opening,) = [number for number, line in enumerate(lines, 1) if line.endswith(("= {", " in ("))]
            lines.insert(opening, entry)
    first = next(number for number, line in enumerate(lines) if line.startswith("from "))
    lines[first:first] = imports
    path.write_text("\n".join(lines) + "\n")
