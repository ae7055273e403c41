"""Random input at every door: files, queries, times, filters, settings, command lines. Whatever comes, there is an answer
or a named error, never a traceback, and nothing that acts on a terminal or in a prompt comes out.

The same few examples run each time. To look further: RECGRAPH_FUZZ=5000 gives each test so many new ones.

    RECGRAPH_FUZZ=5000 python -m pytest -o timeout=0 tests/test_fuzz.py
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from within import within

from recgraph.cli import main
from recgraph.errors import RecgraphError, SettingsError, StoreError, UnknownUser
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings, load_settings
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest
from recgraph.store.records import Event, parse_time
from recgraph.tools.llm.untrusted import harmless, nameable, one_line
from recgraph.tools.wish.wish import Price, Wish

MANY = int(os.environ.get("RECGRAPH_FUZZ", "0"))
SEEN_SIGNS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"  # yet visible


def fuzzed(examples: int) -> Callable[[Any], Any]:
    """So many examples, always the same ones; MANY new ones where it is set."""
    return settings(
        max_examples=MANY or examples,
        derandomize=not MANY,
        deadline=None,
        database=None,
        suppress_health_check=[*HealthCheck],
        phases=[Phase.generate, Phase.shrink],
    )


def check_message(error: RecgraphError) -> None:
    """It says something, and nothing in it acts."""
    assert str(error)
    assert not acting(str(error)), str(error)


def acting(text: str) -> set[str]:
    """The characters of an output that act on a terminal or cannot be seen, but for line ends."""
    kinds = ((c, unicodedata.category(c)) for c in text if c != "\n" and c not in SEEN_SIGNS)
    return {c for c, kind in kinds if kind in ("Cc", "Cf", "Zl", "Zp", "Cs")}


# ── What is put in ────────────────────────────────────────────────────────────────────────────────────────────────────

anything = st.text(st.characters(exclude_categories=()), max_size=40)  # halves of pairs too
odd = st.sampled_from(
    [
        *(
            "",
            " ",
            "0",
            "-1",
            "1e309",
            "nan",
            "inf",
            "NULL",
            "None",
            "true",
            "'",
            '"',
            '""',
            "\\",
            "\\N",
            ",",
            ";",
            "\t",
        ),
        *(
            "a\nb",
            "a\r\nb",
            "\x00",
            "\x1b[2J",
            "\u202eabc",
            "\u200b",
            "\ufeff",
            "<|im_end|>",
            "</s>",
            "[INST]",
            "###",
            "<<<>>>",
        ),
        *(
            "../../etc/passwd",
            "%s%n",
            "{0}",
            "${x}",
            "'; DROP TABLE items; --",
            "🧥",
            "e\u0301",
            "ß",
            "İ",
            "٣",
            "x" * 300,
        ),
        *(
            "9" * 25,
            "0x10",
            "1_000",
            "１２",
            "01/02/2025",
            "2025-02-30",
            "0000-00-00",
            "9999-12-31",
            "1e5",
            "-0",
            "+1",
            "1,5",
        ),
    ]
)
words = st.lists(
    st.sampled_from(
        "linen wool olive shirt boots Harrow Fenn under over not without 50 €60 between and or cheaper size M 42 like the "
        "one I bought blue red no < > % $ 1.000,00 % - – “ ” of from to in than at least most ~ about around £5".split()
    ),
    max_size=9,
).map(" ".join)
text = st.one_of(words, odd, anything, st.tuples(words, odd, words).map(" ".join))
item_ids = st.one_of(st.sampled_from(["S1OLIV", "K1GREY", "B1BRWN", "FUTURE", "SOLDUT", "NOTITL"]), text)
users = st.one_of(st.sampled_from(["U1", "U2", "U3"]), text)
when = st.one_of(
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(str),
    st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1)).map(lambda moment: moment.isoformat()),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    text,
)
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, -1, 10**30, float("inf"), float("nan")]))


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

COLUMNS = {
    "items": {
        "item_id": item_ids,
        "title": text,
        "category": text,
        "price": st.one_of(numbers.map(str), text),
        "color": text,
    },
    "events": {
        "user_id": users,
        "ts": when,
        "action": st.one_of(
            st.sampled_from(["click", "search", "purchase", "view", "add to cart", "Rücksendung"]), text
        ),
        "item_id": item_ids,
        "query": text,
        "position": st.one_of(numbers.map(str), text),
    },
    "exposures": {"query": text, "item_id": item_ids, "position": numbers.map(str), "ts": when},
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, list[dict[str, str]]]:
    """A kind and rows of it, some columns of which may be missing."""
    kind = draw(st.sampled_from([*COLUMNS]))
    columns = draw(st.lists(st.sampled_from([*COLUMNS[kind]]), min_size=2, unique=True))
    return kind, draw(
        st.lists(st.fixed_dictionaries({name: COLUMNS[kind][name] for name in columns}), min_size=1, max_size=6)
    )


@st.composite
def csv_files(draw: st.DrawFn) -> tuple[str, bytes]:
    kind, rows = draw(tables())
    out = io.StringIO()
    form = {"delimiter": draw(st.sampled_from(",;\t|")), "quotechar": draw(st.sampled_from("\"'"))}
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.DictWriter(
        out, [*rows[0]], quoting=quoting, lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])), **form
    )
    writer.writeheader()
    writer.writerows(rows)
    told = out.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"])), "replace")
    if draw(st.booleans()):  # cut off or with a stray byte
        place = draw(st.integers(0, len(told)))
        told = (
            told[:place]
            + draw(st.sampled_from([b"", b'"', b"\x00", b"\xff", b"\n\n"]))
            + told[place:][: draw(st.integers(0, 400))]
        )
    return kind, told


@st.composite
def json_files(draw: st.DrawFn) -> tuple[str, bytes]:
    kind, rows = draw(tables())
    values = st.one_of(
        text, numbers, st.none(), st.booleans(), st.lists(text, max_size=2), st.dictionaries(text, text, max_size=2)
    )
    mixed = [{**row, draw(text): draw(values), draw(st.sampled_from([*row])): draw(values)} for row in rows]
    lines = [json.dumps(row) for row in mixed]
    told = draw(
        st.sampled_from(
            ["\n".join(lines), f"[{','.join(lines)}]", '{"data": [' + ",".join(lines) + "]}", "\n\n".join(lines)[:-1]]
        )
    )
    return kind, told.encode("utf-8", "surrogatepass")


def read(files: list[tuple[str, bytes]]) -> None:
    """What is loaded is a store that opens and holds what the report says; what is not is a named error."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, store = Path(scratch) / "in", Path(scratch) / "shop.duckdb"
        folder.mkdir()
        for name, data in files:
            (folder / name).write_bytes(data)
        try:
            report = ingest(store, "auto", [folder])
        except RecgraphError as error:
            check_message(error)
            assert not store.exists()
            return
        with Store.open(store) as opened:
            counts = opened.counts()
            assert (counts["users"], counts["rejects"]) == (report.users, report.rejects)
            assert counts["events"] == report.events_new <= report.events_read
            assert all(one.user_id for one in opened.users(limit=100))
            assert sum(one.count for one in opened.reject_reasons()) == report.rejects
        again = ingest(store, "auto", [folder])
        assert (again.events_new, again.items_new, again.items_changed) == (0, 0, 0)
        assert sorted(entry.name for entry in Path(scratch).iterdir()) == ["in", "shop.duckdb"]


@pytest.mark.slow
@fuzzed(4)
@given(file=csv_files())
def test_any_csv_file_is_loaded_or_refused_by_name(file: tuple[str, bytes]) -> None:
    read([(f"{file[0]}.csv", file[1])])


@pytest.mark.slow
@fuzzed(4)
@given(file=json_files(), catalogue=csv_files())
def test_any_json_file_is_loaded_or_refused_by_name(file: tuple[str, bytes], catalogue: tuple[str, bytes]) -> None:
    read([(f"{file[0]}.jsonl", file[1]), (f"{catalogue[0]}-more.csv", catalogue[1])])


# ── Text ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

TOKENS = ("<|", "|>", "</s>", "<s>", "[INST]", "[/INST]", "###", "<start_of_turn>")
pieces = st.lists(
    st.one_of(
        st.sampled_from([*TOKENS, "<", ">", "|", "#", "##", "[", "]", "INST", "im_end", "s", "/", "\u200b", " "]),
        odd,
        anything,
    ),
    max_size=30,
)


@fuzzed(150)
@given(parts=pieces, limit=st.integers(1, 400))
def test_no_control_token_and_no_acting_character_is_left_of_a_text(parts: list[str], limit: int) -> None:
    clean = harmless("".join(parts), limit)
    assert len(clean) <= limit
    assert not acting(clean)
    assert "\n" not in clean
    assert not any(token in clean for token in TOKENS)
    assert harmless(clean, limit) == clean
    assert not acting(one_line("".join(parts), limit))
    nameable("".join(parts))


@fuzzed(150)
@given(told=when)
def test_any_time_is_read_or_refused_by_name(told: str) -> None:
    with suppress(RecgraphError):
        assert parse_time(told).tzinfo is None


# ── Questions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    for name, rows in (("items", SHOP_ITEMS), ("events", SHOP_EVENTS), ("exposures", SHOP_EXPOSURES)):
        (folder / f"{name}.csv").write_text(rows)
    ingest(folder / "shop.duckdb", "tables", [folder])
    return folder / "shop.duckdb"


@pytest.fixture(scope="module")
def opened(shop: Path) -> Iterator[Recommender]:
    with Recommender(Store.open(shop), Settings(store=str(shop), llm="none"), FakeEncoder(), None) as recommender:
        yield recommender


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    asked: dict[str, Any] = {"new_user": draw(st.booleans())}
    moments = st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1))
    options = {
        "k": st.one_of(st.integers(-2, 40), st.just(10**9)),
        "as_of": st.one_of(when, st.datetimes(), moments, moments.map(lambda moment: moment.replace(tzinfo=UTC))),
        "mode": st.sampled_from(["fused", "paper", ""]),
        "paradigm": st.sampled_from(["recurrent", "hierarchical", "x"]),
        "deadline": st.one_of(st.floats(), st.floats(0.01, 30)),
        "thread": text,
    }
    for name in draw(st.sets(st.sampled_from([*options]), max_size=3)):
        asked[name] = draw(options[name])
    return asked


def answered(recommender: Recommender, user: str, query: str, asked: dict[str, Any]) -> None:
    try:
        with within(20):
            found = recommender.recommend(user, query, **asked)
    except RecgraphError as error:
        check_message(error)
        return
    ids = [line.item.item_id for line in found.items]
    assert len(set(ids)) == len(ids) <= asked.get("k", 10)
    known = recommender.store.items(ids)
    assert set(known) == set(ids)
    told = found.to_dict()
    shown = [
        *(line["reason"] for line in told["items"]),
        *told["degraded"],
        *(told["relaxed"] or ()),
        told["summary"]["text"],
    ]
    assert not {c for one in shown for c in acting(str(one))}
    wish = told["understood"] or {}
    if (
        not asked.get("as_of")
        and not any(wish.get(part) for part in ("want", "avoid", "price", "like"))
        and not asked.get("wish")
    ):
        assert len(ids) == min(asked.get("k", 10), 11), (ids, told)
    json.dumps(told, allow_nan=False).encode("utf-8", "surrogatepass")


@pytest.mark.slow
@fuzzed(12)
@given(user=users, query=text, asked=questions())
def test_any_question_is_answered_with_products_of_the_shop_or_refused_by_name(
    opened: Recommender, user: str, query: str, asked: dict[str, Any]
) -> None:
    answered(opened, user, query, asked)


@pytest.mark.slow
@fuzzed(12)
@given(
    want=st.dictionaries(
        st.one_of(st.sampled_from(["color", "brand", "category", "size"]), text), st.lists(text, max_size=2), max_size=2
    ),
    avoid=st.dictionaries(
        st.one_of(st.sampled_from(["color", "brand"]), text),
        st.lists(st.one_of(st.just("Olive"), text), max_size=2),
        max_size=2,
    ),
    bounds=st.tuples(*[st.one_of(st.none(), numbers.map(float))] * 3),
    query=text,
)
def test_any_filter_holds_or_is_refused_by_name(
    opened: Recommender,
    want: dict[str, list[str]],
    avoid: dict[str, list[str]],
    bounds: tuple[Any, Any, Any],
    query: str,
) -> None:
    try:
        wish = opened.filters(want, avoid, Price(*bounds))
    except RecgraphError as error:
        check_message(error)
        return
    assert Wish.from_dict(json.loads(json.dumps(wish.to_dict()))) == wish
    answered(opened, "U1", query, {"wish": wish})


@fuzzed(60)
@given(query=text, user=st.one_of(st.just(""), users))
def test_any_query_is_understood_and_what_is_told_of_it_acts_on_nothing(
    opened: Recommender, query: str, user: str
) -> None:
    try:
        wish = opened.understand(query, user)
    except RecgraphError as error:
        check_message(error)
        return
    assert wish == opened.understand(query, user)
    assert not {c for part in wish.parts("") for c in acting(str(part))}
    json.dumps(wish.to_dict(), allow_nan=False)


@pytest.mark.slow
@fuzzed(6)
@given(
    events=st.lists(
        st.builds(
            Event, users, st.integers(-5, 5), st.datetimes(), st.sampled_from(["click", "search", "x"]), item_ids, text
        ),
        max_size=4,
    ),
    item=st.dictionaries(
        st.sampled_from(["item_id", "title", "price", "in_stock", "attributes", "nonsense"]),
        st.one_of(text, numbers, st.none()),
        max_size=4,
    ),
)
def test_any_event_and_product_is_recorded_or_refused_by_name(
    shop: Path, events: list[Event], item: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copy(shop, scratch))
        with Store.open(copy, write=True) as store:
            before = store.counts()["events"]
            kept: list[Event] = []
            with suppress(RecgraphError):
                kept = store.record_events(events)
            with suppress(RecgraphError):
                store.upsert_items([item])
            assert store.counts()["events"] == before + len(kept)
        with Recommender(Store.open(copy), Settings(store=str(copy), llm="none"), FakeEncoder(), None) as recommender:
            answered(recommender, "U1", "linen", {"k": 5, "wish": Wish(text="linen")})


# ── Settings and command lines ────────────────────────────────────────────────────────────────────────────────────────

NAMES = [*Settings.__dataclass_fields__]
values = st.one_of(numbers, text, st.booleans())


def toml(told: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool | float) else json.dumps(value)

    return "\n".join(f"{name} = {shown(value)}" for name, value in told.items())


@fuzzed(80)
@given(
    in_file=st.one_of(st.dictionaries(st.sampled_from([*NAMES, "nonsense"]), values, max_size=4).map(toml), anything),
    in_environment=st.dictionaries(st.sampled_from(NAMES), text, max_size=2),
)
def test_any_settings_file_and_environment_gives_settings_or_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, in_file: str, in_environment: dict[str, str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "recgraph.toml").write_bytes(in_file.encode("utf-8", "surrogatepass"))
    try:
        found = load_settings({f"RECGRAPH_{name.upper()}": value for name, value in in_environment.items()}, folder)
    except RecgraphError as error:
        check_message(error)
    else:
        assert found.deadline > 0
        assert found.k >= 1
        assert found.rerank_weight is None or 0 <= found.rerank_weight <= 1


OPTIONS: dict[str, dict[str, Any]] = {
    "run": {
        **{
            "--user": users,
            "--query": text,
            "--category": text,
            "--k": numbers.map(str),
            "--as-of": when,
            "--mode": text,
        },
        **{
            "--min-price": numbers.map(str),
            "--max-price": numbers.map(str),
            "--want": text,
            "--not": text,
            "--deadline": numbers.map(str),
        },
        **{"--new-user": None, "--json": None},
    },
    "understand": {"": text, "--user": users, "--json": None},
    "users": {"--like": text, "--limit": numbers.map(str), "--json": None},
    "items": {"--like": text, "--category": text, "--limit": numbers.map(str), "--json": None},
    "history": {"--user": users, "--as-of": when, "--limit": numbers.map(str), "--json": None},
    "rejects": {"--reason": text, "--limit": numbers.map(str), "--json": None},
    "prune": {"--runs-older-than": text},
    "forget": {"--user": text, "--item": text, "--yes": None},
    "ingest": {"": text, "--map": text, "--encoding": text, "--format": text, "--dry-run": None},
}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from([*OPTIONS]))
    line = [command]
    for option in draw(st.lists(st.sampled_from([*OPTIONS[command]]), max_size=4)):
        value = OPTIONS[command][option]
        line += [one for one in (option, None if value is None else draw(value)) if one]
    return line


@contextmanager
def elsewhere() -> Iterator[Path]:
    """A current folder of its own, whatever a command writes into it."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            yield Path(scratch)
        finally:
            os.chdir(before)


@pytest.mark.slow
@fuzzed(15)
@given(line=command_lines())
def test_any_command_line_ends_in_an_answer_or_a_line_that_says_what_is_wrong(shop: Path, line: list[str]) -> None:
    with elsewhere() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("recgraph.graph.recommender.encoder_of", lambda *_: FakeEncoder())
        patch.setenv("RECGRAPH_LLM", "none")
        patch.setenv("NO_COLOR", "1")
        copy = shutil.copy(shop, folder / "shop.duckdb")
        done = CliRunner().invoke(main, [*line, "--store", str(copy)])
        assert done.exception is None or isinstance(done.exception, SystemExit), (line, done.exception)
        assert done.exit_code in (0, 1, 2)
        assert done.exit_code == 0 or done.output
        before = line[line.index("--json") - 1] if "--json" in line else "--"
        if not before.startswith("--") and done.exit_code == 0:  # else it may be another option's value
            json.loads(done.stdout)
        assert not acting(done.output), (line, acting(done.output))
        with Store.open(copy) as store:
            assert store.counts()["items"] >= 11


# ── What was found, once more by name ─────────────────────────────────────────────────────────────────────────────────


def test_a_moment_with_an_offset_is_taken_as_it_is_meant(opened: Recommender) -> None:
    """It came out as a warning of numpy's, or as the wrong hour."""
    early = datetime(2025, 3, 1, 10, 30, tzinfo=timezone(timedelta(hours=2)))  # 8:30 UTC, before the search of 9:00
    for as_of in (early, early.isoformat(), datetime(2025, 3, 1, 8, 30)):
        assert opened.recommend("U1", as_of=as_of).to_dict()["summary"]["event_seqs"] == [1, 2, 3, 4]
    with pytest.raises(SettingsError, match="is not a time"):
        opened.recommend("U1", as_of=datetime.max.replace(tzinfo=timezone(timedelta(hours=-2))))


@pytest.mark.parametrize("line", ["k = inf", "deadline = nan", "k = 1e400", "mode = '\x00'", "\xff"])
def test_a_number_that_none_is_and_a_file_that_is_no_text_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "recgraph.toml").write_bytes(line.encode("latin1"))
    with pytest.raises(SettingsError):
        load_settings({}, tmp_path)


def test_a_home_that_nobody_has_is_a_missing_file_and_messages_act_on_nothing(shop: Path) -> None:
    for line in (
        ["ingest", "~nobody here/x.csv"],
        ["users", "--store", "~nobody here/x.duckdb"],
        ["run", "--user", "a", "\x1b[2J"],
        ["forget", "--user", "a\x1f", "--store", str(shop)],  # the question, answered by the end of the input
    ):
        done = CliRunner().invoke(main, line)
        assert isinstance(done.exception, SystemExit)
        assert not acting(done.output)
    with Store.open(shop) as store, pytest.raises(UnknownUser) as told:
        store.require_user("U1\x1b[2J\u202e")
    assert not acting(str(told.value))


@pytest.mark.parametrize(
    "given_", [{"attributes": "red"}, {"price": float("nan")}, {"price": "3"}, {"in_stock": 2}, {"title": ["a"]}]
)
def test_a_product_field_of_another_kind_is_refused_by_name(shop: Path, tmp_path: Path, given_: dict[str, Any]) -> None:
    with (
        Store.open(shutil.copy(shop, tmp_path), write=True) as store,
        pytest.raises(StoreError, match=f"{next(iter(given_))} of product 'S1OLIV'"),
    ):
        store.upsert_items([{"item_id": "S1OLIV", **given_}])
