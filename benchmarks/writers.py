"""The commands that write into a store, to be killed (kills.py) or to run on a full disk (full_disk.py), and the
folders with small shops that they begin with.

    tables/ more/ files to be loaded      empty/ no store      shop/ a store, run log and checkpoints
    exported/ a snapshot beside it        published/ a store of `train publish`
    damaged/ flipped bits, a run log of text, checkpoints cut off        schema 1/ schema 2/ what older versions wrote
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parent))
from damage import WordEncoder, in_a_process, write_tables

from recgraph import cli
from recgraph.errors import RecgraphError
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings
from recgraph.store import migrations, snapshot
from recgraph.store.care.health import examine
from recgraph.store.connection import CONFIG
from recgraph.store.db import Store
from recgraph.store.ingest.side import take_place
from recgraph.store.records import Event, Summary
from recgraph.store.snapshot import load_summaries, write_summaries
from recgraph.train import publish

Tell = Callable[[object], None]  # acknowledges something: who hears it may count on it


@dataclass(frozen=True)
class Command:
    """`act` does it in a folder; `base` is the folder it begins with; `grows` are the parts of which it keeps some
    before the others, `missing` says what was acknowledged and is not in a state."""

    act: Callable[[Path, Tell], object]
    base: str = "shop"
    grows: tuple[str, ...] = ()
    again: Callable[[Path, Tell], object] | None = None  # where running it again is another call
    missing: Callable[[Mapping[str, Any], Sequence[Any]], str] = lambda state, told: ""
    absent: tuple[str, ...] = ()  # what stands in no file any more once it has ended
    share: float = 1.0  # of the kills


# ── Commands ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def line(*words: str) -> Callable[[Path, Tell], object]:
    """A command line; FOLDER in it stands for the folder. An exit code that says no more than "nothing was known"
    counts as done: what was killed may have done it."""

    def act(folder: Path, _: Tell) -> None:
        arguments = [word.replace("FOLDER", str(folder)) for word in words]
        with open(os.devnull, "w") as away, redirect_stdout(away), redirect_stderr(away):
            try:
                cli.main([*arguments, "--store", str(folder / "shop.duckdb")], standalone_mode=False)
            except SystemExit as end:
                if end.code not in (0, 1, None):
                    raise

    return act


def recommender(folder: Path, checkpoint: bool = True) -> Recommender:
    settings = replace(Settings(), store=str(folder / "shop.duckdb"), llm="none")
    place = str(folder / "runs.sqlite") if checkpoint else ""
    return Recommender(Store.open(settings.store), settings, WordEncoder(), None, checkpoint=place)


def build(folder: Path, _: Tell) -> None:
    with recommender(folder, checkpoint=False) as opened:
        opened.warm_up()


def run(folder: Path, tell: Tell) -> None:
    """Answers for shoppers whose summaries are not there yet, each acknowledged with what was there after it."""
    with recommender(folder) as opened:
        for number in range(20, 24):
            opened.recommend(f"U{number}", "oak table")
            rows = opened.store._all("SELECT input_hash FROM summaries WHERE user_id = ?", [f"U{number}"])
            tell([input_hash for (input_hash,) in rows])


def record(folder: Path, tell: Tell) -> None:
    with Store.open(folder / "shop.duckdb", write=True) as store:
        for number in range(20):
            store.record_events([Event("U3", 0, datetime(2026, 1, 1, 0, number), "click", "I0007")], [f"e{number}"])
            tell(f"e{number}")


def upsert(folder: Path, _: Tell) -> None:
    with Store.open(folder / "shop.duckdb", write=True) as store:
        store.upsert_items([{"item_id": f"I{n:04d}", "price": 5.0 + n, "in_stock": n % 3 > 0} for n in range(200)])


def load_snapshot(folder: Path, _: Tell) -> None:
    """Into a store of another name, as who begins on another machine does; then it takes the place."""
    made = folder / "loaded.duckdb"
    for one in (made, folder / "loaded.duckdb.wal"):
        one.unlink(missing_ok=True)
    snapshot.load(folder / "backup", made).close()
    take_place(made, folder / "shop.duckdb")


def publishing(folder: Path, _: Tell) -> None:
    """The stage with a stand-in for what the other stages made."""

    def fill(store: Store, *_: object) -> dict[str, Any]:
        made = [Summary(f"{n:012d}", f"U{n}", "recurrent", 0, 0, 3, (), (1,), "m", "1") for n in range(80)]
        with TemporaryDirectory(dir="/tmp") as elsewhere:  # what stages made is there before, and not looked at
            write_summaries(Path(elsewhere) / "summaries.parquet", made)
            load_summaries(store, Path(elsewhere) / "summaries.parquet")
        store.set_meta("published", json.dumps({"revision": store.revision(), "split": "x"}))
        return {"adapters": {}}

    publish.fill = fill  # type: ignore[assignment]
    publish.split_folder = lambda *_: folder
    params = {"publish": {"store": "shop.duckdb"}, "data": "none.duckdb", "preset": "default", "split": "global"}
    params["summarize"] = {"block": 5, "merge": 3, "summarizer": "profile", "paradigms": ["recurrent"]}
    publish.run(params, folder, lambda _: None)


def migrate(folder: Path, _: Tell) -> None:
    Store.open(folder / "shop.duckdb").close()


def mend(folder: Path, _: Tell) -> None:
    """`recgraph doctor --deep --mend`, without its look at the machine."""
    for finding in examine(folder / "shop.duckdb", [folder / "runs.sqlite"]):
        if finding.mend is not None:
            with suppress(RecgraphError, OSError):
                finding.mend()


def unheard(state: Mapping[str, Any], told: Sequence[Any]) -> str:
    """Events that were acknowledged and are not in the store, or more than one that was not."""
    lost = set(told) - set(state["events"])
    more = len(state["events"]) - len(told)
    return f"{len(lost)} acknowledged events lost" if lost else f"{more} events more" if more > 1 else ""


def unsummarised(state: Mapping[str, Any], told: Sequence[Any]) -> str:
    lost = {one for some in told for one in some} - set(state["summaries"])
    return f"{len(lost)} summaries of answers that were given are lost" if lost else ""


MORE = "FOLDER/../more"
WHO, RARE = "shopperZebra77", "quokkahide"  # a shopper, and a word that nobody else typed
COMMANDS: dict[str, Command] = {
    "ingest CSV, new store": Command(line("ingest", f"{MORE}/csv"), "empty"),
    "ingest CSV, more rows": Command(line("ingest", f"{MORE}/csv")),
    "ingest CSV, again": Command(line("ingest", "FOLDER/../tables")),
    "ingest CSV, --complete": Command(line("ingest", f"{MORE}/items", "--complete")),
    "ingest JSON lines, more rows": Command(line("ingest", f"{MORE}/jsonl")),
    "ingest Parquet, more rows": Command(line("ingest", f"{MORE}/parquet")),
    "build": Command(build, grows=("vectors",), share=1.5),
    "run": Command(run, grows=("summaries", "runs", "vectors", "checkpoints"), missing=unsummarised, share=2.0),
    "record events": Command(record, grows=("content", "events"), missing=unheard),
    "upsert products": Command(upsert),
    "adapters use": Command(line("adapters", "use", "none")),
    "train publish": Command(publishing, "published"),
    "forget --user": Command(line("forget", "--user", WHO, "--yes"), absent=(WHO, RARE), share=2.0),
    "forget --item": Command(line("forget", "--item", "I0007", "--yes")),
    "prune": Command(line("prune", "--runs-older-than", "0h"), share=1.5),
    "export, new folder": Command(line("export", "FOLDER/backup")),
    "export, over an older one": Command(line("export", "FOLDER/backup"), "exported", share=1.5),
    "snapshot into a store": Command(load_snapshot, "exported"),
    "doctor --deep --mend": Command(mend, "damaged", share=1.5),
    "a store of schema 1": Command(migrate, "schema 1"),
    "a store of schema 2": Command(migrate, "schema 2"),
}


# ── Folders to begin with ─────────────────────────────────────────────────────────────────────────────────────────────


def make_bases(root: Path) -> None:
    write_tables(root / "tables")
    with (root / "tables" / "events.csv").open("a") as file:
        for n in range(9):
            file.write(f"{WHO},2025-11-02 10:0{n}:00,click,I{n:04d},{RARE} boots,1\n")
    _more_tables(root / "more")
    (root / "empty").mkdir()
    shop = root / "shop"
    shop.mkdir()
    _must(lambda: line("ingest", "FOLDER/../tables")(shop, lambda _: None))
    for user in ("U7", "U8", WHO):
        _must(lambda: _ask(shop, user))  # noqa: B023
    for name in ("exported", "published", "damaged", "schema 1", "schema 2"):
        shutil.copytree(shop, root / name)
    _must(lambda: line("export", "FOLDER/backup")(root / "exported", lambda _: None))
    _must(lambda: upsert(root / "exported", lambda _: None))
    _must(
        lambda: (
            snapshot.write(Store.open(shop / "shop.duckdb"), root / "published" / "data" / "prepare" / "all") and None
        )
    )
    _must(lambda: publishing(_without_store(root / "published"), lambda _: None))
    _must(lambda: _downgrade(root / "schema 2" / "shop.duckdb", 2))
    _must(lambda: _downgrade(root / "schema 1" / "shop.duckdb", 1))
    _must(lambda: _damage(root / "damaged"))


def _must(work: Callable[[], Any]) -> None:
    told = in_a_process(work)
    if "result" not in told:
        raise SystemExit(f"the shop could not be made: {told}")


def _ask(folder: Path, user: str) -> None:
    with recommender(folder) as opened:
        opened.recommend(user, f"{RARE} jumper")


def _without_store(folder: Path) -> Path:
    (folder / "shop.duckdb").unlink()
    return folder


def _more_tables(folder: Path, rows: int = 6_000) -> None:
    """The same new rows in each form, and a feed that lacks products."""
    columns = ("user_id", "ts", "action", "item_id")
    events = [(f"V{n % 500}", f"2025-12-{1 + n % 28:02d} 10:00:00", "click", f"I{n % 330:04d}") for n in range(rows)]
    for form in ("csv", "jsonl", "parquet", "items"):
        (folder / form).mkdir(parents=True)
    text = "\n".join([",".join(columns), *(",".join(row) for row in events), "V1,never,click,I0001"])
    (folder / "csv" / "events.csv").write_text(text + "\n")
    lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in events)
    (folder / "jsonl" / "events.jsonl").write_text("\n".join(lines) + "\n")
    with duckdb.connect(config=CONFIG) as con:
        con.execute(f"CREATE TABLE e ({', '.join(f'{name} VARCHAR' for name in columns)})")
        con.executemany("INSERT INTO e VALUES (?, ?, ?, ?)", events[:2000])
        con.execute(f"COPY e TO '{folder / 'parquet' / 'events.parquet'}' (FORMAT parquet)")
    kept = [f"I{n:04d},Oak table no {n},table,{20 + n}" for n in range(250)]
    (folder / "items" / "items.csv").write_text("\n".join(["item_id,title,category,price", *kept]) + "\n")


def _downgrade(path: Path, version: int) -> None:
    """The store as an older recgraph wrote it."""
    with duckdb.connect(str(path), config=CONFIG) as con:
        con.execute("DROP TABLE changes; DROP TABLE event_ids; DELETE FROM meta WHERE key = 'migration_0003'")
        if version == 1:
            con.execute("DROP VIEW shown; ALTER TABLE items DROP COLUMN listed; DROP TABLE returned")
            con.execute(migrations_view())
            con.execute("DELETE FROM meta WHERE key IN ('migration_0002', 'catalogue')")
        con.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [str(version)])


def migrations_view() -> str:
    """The view of schema.sql, which stands between a table and its change."""
    text = (Path(migrations.__file__).parent / "schema.sql").read_text(encoding="utf-8")
    return text[text.index("CREATE VIEW shown") :].split(";")[0]


def _damage(folder: Path) -> None:
    """A run log of text, a checkpoint file cut off, and a store of which all but one table can be saved."""
    sound = (folder / "shop.duckdb").read_bytes()
    for seed in range(400):
        data, draw = bytearray(sound), random.Random(seed)
        data[draw.randrange(len(data))] ^= 8
        (folder / "shop.duckdb").write_bytes(data)
        told = in_a_process(
            lambda: [finding.found for finding in examine(folder / "shop.duckdb") if finding.ok is False]
        )
        if any("embeddings" in one and "items" not in one and "events" not in one for one in told.get("result", ())):
            break
    else:
        raise SystemExit("no seed damages the vectors alone")
    (folder / "shop.runs.duckdb").write_text("no database\n" * 900)
    os.truncate(folder / "runs.sqlite", 5_000)
