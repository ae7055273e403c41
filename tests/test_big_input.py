"""Input of a size that nobody expects: it costs bounded memory, and what was good beside it is kept."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from recgraph.errors import IngestError
from recgraph.store.db import Store
from recgraph.store.ingest import read
from recgraph.store.ingest.load import ingest

INGEST = r"""
import re, sys, time
from recgraph.store.ingest.load import ingest
ingest(sys.argv[1], "auto", sys.argv[2:])
# Not ru_maxrss: a child of a large process begins with its parent's.
print(int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) // 1024, time.process_time())
"""
HEAD, GOOD, LONG = b"user_id,ts,action,item_id\n", b"a,2025-01-01,click,i\n", b"b,2025-01-01,click," + b"y" * 13_000_000
LINE = b'{"user_id": "a", "ts": "2025-01-01", "action": "click", "item_id": "i"}\n'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("events.csv.gz", HEAD + GOOD + LONG + b"\n" + GOOD.replace(b"a", b"c", 1)),
        ("events.jsonl.gz", LINE + b'{"x": "' + LONG + b'"}\n' + LINE.replace(b'"a"', b'"c"')),
        ("events.jsonl.gz", LINE + b'{"a":' * 2_600_000 + b"\n" + LINE.replace(b'"a"', b'"c"')),
        ("events.json.gz", b"[" + LINE + b',{"x": "' + LONG + b'"},' + LINE.replace(b'"a"', b'"c"') + b"]"),
        (
            "events.json.gz",
            b"[" + LINE + b',{"x": [' + b'{"a":1},' * 1_600_000 + b"1]}," + LINE.replace(b'"a"', b'"c"') + b"]",
        ),
    ],
    ids=["csv", "json", "json in json", "json array", "json array of arrays"],
)
def test_a_line_of_13_mb_is_rejected_and_costs_no_gigabyte_and_ten_seconds(
    name: str, content: bytes, tmp_path: Path
) -> None:
    """It took 6.6 GB. The seconds are the processor's: one to five."""
    (tmp_path / name).write_bytes(gzip.compress(content, 1))
    store = tmp_path / "shop.duckdb"
    command = [sys.executable, "-c", INGEST, str(store), str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    megabytes, seconds = done.stdout.split()
    assert int(megabytes) < 1000
    assert float(seconds) < 10
    with Store.open(store) as opened:
        assert opened.counts()["events"] == 2
        [row] = opened.rejects(10)
        assert len(row.raw) == 1000
        assert row.reason.startswith("line size over maximum")


@pytest.mark.parametrize("opened", ['I{0},"Oak table {0},Tables,5\n', '"I{0},"Oak table {0},"Tables,"5\n'])
def test_a_file_whose_quotes_are_none_is_given_up_soon(
    opened: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read 21 times; the second kind, which the fuzzer found as well, raised an IndexError."""
    lines = "".join(opened.format(number) for number in range(20_000))
    (tmp_path / "items.csv").write_text("item_id,title,category,price\n" + lines)
    readings = 0

    def scanned(file: read.RawFile, *arguments: object) -> None:
        nonlocal readings
        readings += 1
        scan(file, *arguments)  # type: ignore[arg-type]

    scan = read.RawFile._scan
    monkeypatch.setattr(read.RawFile, "_scan", scanned)
    with pytest.raises(IngestError, match="a quote is never closed"):
        ingest(tmp_path / "s.duckdb", "auto", [tmp_path / "items.csv"])
    assert readings == 2


def test_nineteen_open_quotes_in_a_file_are_still_mended_one_by_one(tmp_path: Path) -> None:
    rows = [f'I{number},"Oak table {number}' + '"' * (number % 110 != 7) for number in range(2_000)]
    (tmp_path / "items.csv").write_text("item_id,title\n" + "\n".join(rows) + "\n")
    report = ingest(tmp_path / "s.duckdb", "auto", [tmp_path / "items.csv"])
    assert (report.items_new, report.rejects) == (1981, 19)
