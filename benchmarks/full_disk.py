"""A disk that fills up under every command that writes: a real one, a tmpfs with little room, so only root can run it.

A command counts as survived where it ends, or says in a sentence that the disk is full and what helps, without a
traceback; and where afterwards the store opens and holds all of the old state or all of the new one.

    python benchmarks/full_disk.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from damage import in_a_process, machine
from kills import compared, done, told_state
from writers import COMMANDS, make_bases

# Bytes that are free beside the files a command begins with. Not 0: to mount, a size of 0 is no limit.
ROOM = (4_096, 40_000, 300_000, 1_000_000, 3_000_000)
GROWS = ("summaries", "vectors", "runs", "checkpoints")
LEFT_OUT = ("doctor --deep --mend", "adapters use", "a store of schema 1")


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of that size over the folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def size_of(folder: Path) -> int:
    """Of its files, each in whole pages, as a disk counts them."""
    return sum(-(-file.stat().st_size // 4096) * 4096 + 4096 for file in folder.rglob("*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the table there too")
    parser.add_argument("--only", default="", help="commands whose name holds this")
    chosen = parser.parse_args()
    table: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="recgraph-full-") as scratch:
        root = Path(scratch)
        make_bases(root)
        for name, command in COMMANDS.items():
            if name in LEFT_OUT or chosen.only not in name:
                continue
            case, table[name] = root / "case", Counter()
            shutil.copytree(root / command.base, case)
            before = {} if command.base.startswith("schema") else told_state(case)
            done(command, case)
            after = told_state(case)
            shutil.rmtree(case)
            for room in ROOM:
                with disk(case, size_of(root / command.base) + room):
                    shutil.copytree(root / command.base, case, dirs_exist_ok=True)
                    told = done(command, case)
                    moved = Path(shutil.copytree(case, root / "moved"))  # reading a log needs some room, too
                fault = compared(told_state(moved), before or after, after, GROWS + command.grows)
                shutil.rmtree(moved)
                unnamed = told if told and "Error: " in told[:60] and "recgraph" not in told else ""
                table[name][fault or unnamed or ("said" if told else "done")] += 1
            print(f"{name:32} {dict(table[name])}", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({**machine(), "rooms": ROOM, "commands": table}, indent=1) + "\n")


if __name__ == "__main__":
    in_a_process(lambda: None)
    main()
