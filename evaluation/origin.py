"""Where a result was made: the commit of this code, the machine, the day. What was measured is unknown here."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from os import cpu_count
from pathlib import Path


@dataclass(frozen=True)
class Origin:
    """What figures hang on beside the systems; None for what a result does not tell. `data_hash` stands for everything
    systems were given and asked, `revision` ends in "+" where files differed from the commit, `seconds` are those of
    fitting and asking."""

    data_hash: str | None = None
    revision: str | None = None
    machine: str | None = None
    date: str | None = None
    command: str | None = None
    seconds: float | None = None

    @classmethod
    def here(cls, data_hash: str, command: str, seconds: float) -> Origin:
        """Of what was just made."""
        return cls(data_hash, revision(), machine(), datetime.now(UTC).date().isoformat(), command, round(seconds, 1))


def revision() -> str:
    """The commit of this code, with "+" where files differ from it; "" where it is no checkout."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return ""
    try:
        commit, changes = (
            subprocess.run(["git", "-C", str(folder), *what], capture_output=True, text=True, check=True).stdout.strip()
            for what in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changes else "")


def machine() -> str:
    """The processor's name and how many there are, and the GPU's where torch is in use and sees one."""
    try:
        cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpus = ""
    name = re.search(r"^model name\s*:\s*(.+)$", cpus, re.MULTILINE)
    found = f"{name[1] if name else platform.processor() or platform.machine()}, {cpu_count()} CPUs"
    torch = sys.modules.get("torch")  # what is counted needs none, and loading it takes seconds
    return f"{found}, {torch.cuda.get_device_name()}" if torch is not None and torch.cuda.is_available() else found
