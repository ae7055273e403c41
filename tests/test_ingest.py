"""Raw logs into a store: each format on lines true to it, what happens to bad rows, and what the same or a grown file
changes."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from recgraph.errors import IngestError
from recgraph.store.db import Store
from recgraph.store.ingest.load import FORMATS, ingest
from recgraph.store.records import EPOCH, Event, Item


def _write(folder: Path, **files: str) -> Path:
    """Files by name (two underscores are a dot); indentation is taken away."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        lines = [line.strip(" ") for line in text.strip("\n").splitlines()]
        data = ("\n".join(lines).rstrip(" ") + "\n").encode()
        path = folder / name.replace("__", ".")
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return folder


def _rejects(path: Path) -> list[tuple[str, int, str]]:
    with duckdb.connect(str(path), read_only=True) as con:
        rows = con.execute("SELECT source, line, reason FROM rejects ORDER BY source, line").fetchall()
    return [(Path(source).name, line, reason) for source, line, reason in rows]


def _events(store: Store, user: str) -> list[tuple[str, str, datetime]]:
    return [(event.action, event.item_id, event.ts) for event in store.history(user)]


# -- what all formats share --------------------------------------------------------------------------------------------

TABLES = {
    "items__csv": 'item_id,title,price,season\nA,"Shirt, white",9.90,summer\nB,Skirt &amp; belt,,',
    "events__csv": "user_id,ts,action,item_id,query,position\nann,2025-01-02,click,A,white "
    "shirt,3\nann,2025-01-01,search,,white shirt,\n"
    "ann,2025-01-02,click,C,,",
    "exposures__csv": "query,item_id,position,ts\nwhite shirt,A,1,2025-01-01",
}


def test_tables_become_items_events_and_exposures(tmp_path: Path) -> None:
    report = ingest(tmp_path / "s.duckdb", "tables", [_write(tmp_path / "in", **TABLES)])
    assert (report.format, report.files, report.users, report.events_read, report.events_new, report.exposures_new) == (
        "tables",
        3,
        1,
        3,
        3,
        1,
    )
    assert (report.items_new, report.items_unlisted, report.rejects) == (3, 1, 0)
    with Store.open(tmp_path / "s.duckdb") as store:
        # Numbered by time, and by row where times are equal.
        assert store.history("ann") == [
            Event("ann", 1, datetime(2025, 1, 1), "search", "", "white shirt"),
            Event("ann", 2, datetime(2025, 1, 2), "click", "A", "white shirt", 3),
            Event("ann", 3, datetime(2025, 1, 2), "click", "C"),
        ]
        items = store.items(["A", "B", "C"])
        # A was shown a day before it was clicked; B was never seen; a column that is not ours is an attribute.
        assert items["A"] == Item(
            "A", "Shirt, white", price=9.9, attributes={"season": "summer"}, first_seen=datetime(2025, 1, 1)
        )
        assert (items["B"].title, items["B"].price, items["B"].first_seen, items["B"].attributes) == (
            "Skirt & belt",
            None,
            None,
            {},
        )
        assert items["C"] == Item("C", first_seen=datetime(2025, 1, 2), listed=False)


@pytest.mark.slow
def test_the_same_files_twice_change_nothing(tmp_path: Path) -> None:
    folder, path = _write(tmp_path / "in", **TABLES), tmp_path / "s.duckdb"
    with (folder / "events.csv").open("a") as events:
        events.write("ann,2025-01-02,click,A,white shirt,3\nann,never,click,A,,\n")  # a real repetition and a bad row
    first = ingest(path, "tables", [folder])
    with Store.open(path) as store:
        revision, history, counts = store.revision(), store.history("ann"), store.counts()
    again = ingest(path, "tables", [folder, folder / "events.csv"])
    assert (first.events_new, first.rejects) == (4, 1)
    assert (
        again.events_read,
        again.events_new,
        again.items_new,
        again.items_changed,
        again.exposures_new,
        again.rejects,
    ) == (4, 0, 0, 0, 0, 1)
    with Store.open(path) as store:
        assert (store.revision(), store.history("ann"), store.counts()) == (revision, history, counts)


@pytest.mark.slow
def test_a_grown_file_adds_what_it_grew_by_and_old_numbers_stay(tmp_path: Path) -> None:
    folder, path = _write(tmp_path / "in", **TABLES), tmp_path / "s.duckdb"
    ingest(path, "tables", [folder])
    with (folder / "events.csv").open("a") as events:
        # one late arrival, one more of what is there
        events.write("ann,2024-12-31,click,B,,\nann,2025-01-02,click,C,,\n")
    _write(folder, items__csv="item_id,title,price,color\nA,,12,white\nD,Coat,1,")
    report = ingest(path, "tables", [folder])
    assert (report.events_read, report.events_new, report.items_new, report.items_changed) == (5, 2, 1, 1)
    with Store.open(path) as store:
        assert [(e.seq, e.item_id) for e in store.history("ann")] == [(4, "B"), (1, ""), (2, "A"), (3, "C"), (5, "C")]
        items = store.items(["A", "B"])
        # An empty title does not erase the old one; a new price replaces it; an earlier event lowers first_seen.
        assert (items["A"].title, items["A"].price, items["A"].color, items["A"].attributes) == (
            "Shirt, white",
            12.0,
            "white",
            {"season": "summer"},
        )
        assert items["B"].first_seen == datetime(2024, 12, 31)


@pytest.mark.slow
def test_a_given_first_seen_is_never_moved(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    events = "user_id,ts,action,item_id\nu,2025-01-01,click,A\nu,2025-07-01,click,B"
    _write(tmp_path / "a", items__csv="item_id,first_seen\nA,2025-06-01\nB,", events__csv=events)
    ingest(path, "tables", [tmp_path / "a"])
    ingest(
        path,
        "tables",
        [_write(tmp_path / "b", events__csv="user_id,ts,action,item_id\nv,2024-01-01,click,A\nv,2025-08-01,click,B")],
    )
    with Store.open(path) as store:
        assert {key: item.first_seen for key, item in store.items(["A", "B"]).items()} == {
            "A": datetime(2025, 6, 1),
            "B": datetime(2025, 7, 1),
        }


def test_bad_rows_are_noted_with_file_line_and_reason_and_stop_nothing(tmp_path: Path) -> None:
    folder = _write(
        tmp_path / "in",
        events__csv="""user_id,ts,action,item_id,query,position
        ann,2025-01-01,click,A,,
        ,2025-01-01,click,A,,
        ann,yesterday,click,A,,
        ann,2025-01-01,stare,A,,
        ann,2025-01-01,click
        ann,2025-01-01,purchase,,,
        ann,2025-01-01,search,A,,
        ann,2025-01-01,click,A,,0
        ann,1969-12-31,click,A,,
        ann,2025-01-03,Click , B ,,2.0""",
        items__csv="item_id,title,price,in_stock\n,No id,1,\nA,Shirt,cheap,perhaps",
        exposures__csv="query,item_id,position,ts\nq,A,,2025-01-01\nq,A,1,2025-01-01",
    )
    report = ingest(tmp_path / "s.duckdb", "tables", [folder])
    assert (report.events_new, report.exposures_new, report.rejects) == (2, 1, 11)
    assert _rejects(tmp_path / "s.duckdb") == [
        ("events.csv", 3, "user_id is missing"),
        ("events.csv", 4, "ts 'yesterday' is not a time"),
        ("events.csv", 5, "action 'stare' is none of search, click, cart, purchase"),
        ("events.csv", 6, "missing columns: Expected Number of Columns: 6 Found: 3"),
        ("events.csv", 7, "item_id is missing"),
        ("events.csv", 8, "query is missing in a search"),
        ("events.csv", 9, "position '0' is not a whole number from 1"),
        ("events.csv", 10, "ts '1969-12-31' is before 1970 or after 9998"),
        ("exposures.csv", 2, "position is missing"),
        ("items.csv", 2, "item_id is missing"),
        ("items.csv", 3, "price 'cheap' is not a number; the item was kept without it"),
    ]
    with Store.open(tmp_path / "s.duckdb") as store:
        assert store.history("ann")[1] == Event("ann", 2, datetime(2025, 1, 3), "click", "B", "", 2)
        assert store.items(["A"])["A"].title == "Shirt"


def test_an_open_quote_costs_its_line_only_and_mixed_line_ends_nothing(tmp_path: Path) -> None:
    head = "user_id,ts,action,item_id\r\n"
    rows = ['a,1,click,"two\nlines"\r\n', 'b,2,click,"open\n', "c,3,click,X\r\n", ",4,click,X\n", "d,5,click,X\n"]
    (tmp_path / "events.csv").write_bytes((head + "".join(rows)).encode())
    report = ingest(tmp_path / "s.duckdb", "tables", [tmp_path / "events.csv"])
    assert _rejects(tmp_path / "s.duckdb") == [
        ("events.csv", 4, "a quote is never closed"),
        ("events.csv", 6, "user_id is missing"),
    ]
    assert report.events_new == 3
    with Store.open(tmp_path / "s.duckdb") as store:
        assert [user for user in "abcd" if store.has_user(user)] == ["a", "c", "d"]


@pytest.mark.slow
def test_bytes_that_are_no_text_and_a_cut_gzip_cost_only_what_is_lost(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_bytes(
        b"\xef\xbb\xbfuser_id,ts,action,item_id\na,1,click,X\nb,2,click,\xff\xfe\nc,3,click,\xc3\x84\n"
    )
    ingest(tmp_path / "s.duckdb", "tables", [tmp_path / "events.csv"])
    assert [(line, reason.split(":")[0]) for _, line, reason in _rejects(tmp_path / "s.duckdb")] == [
        (3, "invalid encoding")
    ]
    with Store.open(tmp_path / "s.duckdb") as store:
        assert [event.item_id for event in store.history("c")] == ["Ä"]
    whole = gzip.compress(
        ("user_id,ts,action,item_id\n" + "".join(f"u{n},{n},click,I{n}\n" for n in range(5000))).encode()
    )
    (tmp_path / "events.csv.gz").write_bytes(whole[: len(whole) // 2])
    report = ingest(tmp_path / "cut.duckdb", "tables", [tmp_path / "events.csv.gz"])
    assert 1000 < report.events_new < 5000


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("7", datetime(1970, 1, 1, 0, 0, 7)),
        ("1735689600", datetime(2025, 1, 1)),
        ("1735689600000", datetime(2025, 1, 1)),
        ("1.7356896e9", datetime(2025, 1, 1)),
        ("2025-01-01T02:00:00+02:00", datetime(2025, 1, 1)),
        ("2025-01-01T00:00:00Z", datetime(2025, 1, 1)),
        ("2025-01-01 00:00:00.5", datetime(2025, 1, 1, 0, 0, 0, 500000)),
    ],
)
def test_times_are_read_as_utc_in_any_of_the_usual_forms(tmp_path: Path, text: str, moment: datetime) -> None:
    """A plain cast to TIMESTAMP drops the offset without a word; this remembers that."""
    ingest(
        tmp_path / "s.duckdb",
        "tables",
        [_write(tmp_path / "in", events__csv=f"user_id,ts,action,item_id\nu,{text},click,A")],
    )
    with Store.open(tmp_path / "s.duckdb") as store:
        assert store.history("u")[0].ts == moment


def test_parquet_and_json_lines_are_read_like_csv(tmp_path: Path) -> None:
    good = '{"user_id":"u","ts":"2025-01-01","action":"click","item_id":"A","position":2}'
    folder = _write(tmp_path / "in", events__jsonl__gz=good + '\nnot json\n\n["u"]\n{}')
    with duckdb.connect() as con:
        con.execute(
            f"""COPY (SELECT 'A' AS item_id, 'Shirt' AS title, 9.5::DECIMAL(6,2) AS price, MAP {{'fit': 'slim'}} AS attributes,
                    TIMESTAMPTZ '2024-05-01 00:00:00+00' AS first_seen, FALSE AS in_stock, 3 AS pockets) TO '{folder}/items_1.parquet'"""
        )
    report = ingest(tmp_path / "s.duckdb", "tables", [folder])
    assert (report.events_new, report.items_new, report.items_unlisted) == (1, 1, 0)
    assert _rejects(tmp_path / "s.duckdb") == [
        ("events.jsonl.gz", 2, "not a JSON object"),
        ("events.jsonl.gz", 4, "not a JSON object"),
        ("events.jsonl.gz", 5, "user_id is missing"),
    ]
    with Store.open(tmp_path / "s.duckdb") as store:
        expected = Item(
            "A",
            "Shirt",
            price=9.5,
            attributes={"fit": "slim", "pockets": "3"},
            first_seen=datetime(2024, 5, 1),
            in_stock=False,
        )
        assert store.items(["A"])["A"] == expected
        assert store.history("u")[0].position == 2


def test_a_mapping_renames_columns_or_sets_them(tmp_path: Path) -> None:
    folder = _write(tmp_path / "in", events__csv="Customer;When;Product's\nann;2025-01-01;A")
    mapping = {
        "events.user_id": "customer",
        "events.ts": "When",
        "events.item_id": "Product's",
        "events.action": "=purchase",
    }
    ingest(tmp_path / "s.duckdb", "tables", [folder], mapping)
    with Store.open(tmp_path / "s.duckdb") as store:
        assert _events(store, "ann") == [("purchase", "A", datetime(2025, 1, 1))]
    with pytest.raises(IngestError, match=r"no column 'user_id' \(it has: Customer, When, Product's\)"):
        ingest(tmp_path / "t.duckdb", "tables", [folder])
    with pytest.raises(IngestError, match=r"'events\.customer', which is no column"):
        ingest(tmp_path / "t.duckdb", "tables", [folder], {"events.customer": "x"})


def test_what_cannot_be_read_says_what_was_expected_and_leaves_no_store(tmp_path: Path) -> None:
    folder, path = (
        _write(tmp_path / "in", sales__csv="a,b\n1,2", events__csv="user_id,ts,action,item_id\n,1,click,A"),
        tmp_path / "s.duckdb",
    )
    for form, given, message in [
        ("parchment", folder, r"'parchment' is no known format\. Known: auto, tables, sequences"),
        ("tables", folder / "sales.csv", r"sales\.csv is no file of the format tables: expected files named items\*"),
        ("mind", folder, r"holds no file of the format mind: expected news\.tsv and behaviors\.tsv"),
        ("tables", folder / "none.csv", "There is no file or folder"),
        ("tables", folder / "events.csv", r"all 1 rows were rejected.*line 2: user_id is missing"),
    ]:
        with pytest.raises(IngestError, match=message):
            ingest(path, form, [given])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in"]


@pytest.mark.slow
def test_an_ingest_that_fails_leaves_an_existing_store_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    ingest(path, "tables", [_write(tmp_path / "in", **TABLES)])
    with Store.open(path) as store:
        before = (store.revision(), store.counts())

    def stop(step: str) -> None:
        if step == "writing exposures":
            raise KeyboardInterrupt

    more = _write(tmp_path / "more", events__csv="user_id,ts,action,item_id\nbob,1,click,Z")
    with pytest.raises(KeyboardInterrupt):
        ingest(path, "tables", [more], progress=stop)
    with Store.open(path) as store:
        assert (store.revision(), store.counts()) == before
    assert ingest(path, "tables", [more]).events_new == 1


@pytest.mark.slow
def test_row_order_survives_a_file_of_many_blocks(tmp_path: Path) -> None:
    """DuckDB reads and writes in parallel blocks of 122,880 rows; the n-th row must still be the n-th event."""
    rows = "".join(f"u,2025-01-01,click,I{n}\n" for n in range(125_000))
    (tmp_path / "events.csv").write_text("user_id,ts,action,item_id\n" + rows)
    ingest(tmp_path / "s.duckdb", "tables", [tmp_path / "events.csv"])
    with Store.open(tmp_path / "s.duckdb") as store:
        assert [event.item_id for event in store.history("u")] == [f"I{n}" for n in range(125_000)]


@pytest.mark.slow
def test_sorting_the_events_anew_after_many_ingests_changes_no_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recgraph.store.ingest.merge.TAIL", 3)
    path, expected = tmp_path / "s.duckdb", dict[str, list[str]]()
    for day in range(1, 6):
        rows = "".join(f"{user},2025-01-0{day},click,I{day}\n" for user in ("zoe", "ann"))
        ingest(path, "tables", [_write(tmp_path / "in", events__csv="user_id,ts,action,item_id\n" + rows)])
        for user in ("zoe", "ann"):
            expected.setdefault(user, []).append(f"I{day}")
    with Store.open(path) as store:
        assert {user: [event.item_id for event in store.history(user)] for user in expected} == expected
        assert [event.seq for event in store.history("zoe")] == [1, 2, 3, 4, 5]
        assert store.meta("events_sorted") == "10"
    with duckdb.connect(str(path), read_only=True) as con:
        assert [user for (user,) in con.execute("SELECT user_id FROM events").fetchall()] == ["ann"] * 5 + ["zoe"] * 5


# -- the formats -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sequences_have_event_numbers_for_times(tmp_path: Path) -> None:
    folder = _write(
        tmp_path / "in",
        user_sequence__txt="ann A B A\n\nbob C\nann D\ncia",
        items__tsv='asin\ttitle\nA\t16" Wig &#9733; sale\nB\tnan\nC\t',
    )
    report = ingest(tmp_path / "s.duckdb", "sequences", [folder])
    assert (report.users, report.events_new, report.items_new, report.items_unlisted, report.rejects) == (2, 4, 3, 0, 2)
    assert _rejects(tmp_path / "s.duckdb") == [
        ("user_sequence.txt", 4, "user ann has an earlier line"),
        ("user_sequence.txt", 5, "no item follows the user"),
    ]
    with Store.open(tmp_path / "s.duckdb") as store:
        assert [(e.item_id, e.action, (e.ts - EPOCH).total_seconds()) for e in store.history("ann")] == [
            *(("A", "purchase", 1), ("B", "purchase", 2), ("A", "purchase", 3)),
        ]
        assert {key: item.title for key, item in store.items("ABC").items()} == {
            "A": '16" Wig ★ sale',
            "B": "",
            "C": "",
        }


@pytest.mark.slow
def test_amazon_2014_reads_strict_reviews_and_metadata_that_are_python_literals(tmp_path: Path) -> None:
    folder = _write(
        tmp_path / "in",
        reviews_Beauty_5__json__gz="""
        {"reviewerID": "A1", "asin": "B1", "helpful": [0, 0], "overall": 5.0, "unixReviewTime": 1391040000, "reviewTime": "01 30, 2014"}
        {"reviewerID": "A1", "asin": "B2", "overall": 1.0}
        {"reviewerID": "A1", "asin":""",
        meta_Beauty__json__gz="""
        {'asin': 'B1', 'title': "Women's &quot;Rose&quot; oil", 'price': 12.5, 'brand': 'Zed', 'categories': [['Beauty', 'Skin Care', 'Oils']]}
        {'asin': 'B2', 'categories': [['Beauty']], 'price': __import__('os')}
        {"asin": "B3", "title": "Strict", "categories": [["Beauty"], ["Gifts"]], "description": "Soft <b>soap</b>"}""",
    )
    report = ingest(tmp_path / "s.duckdb", "amazon-2014", [folder])
    assert (report.events_new, report.items_new) == (1, 2)
    assert _rejects(tmp_path / "s.duckdb") == [
        ("meta_Beauty.json.gz", 2, "not a JSON object"),
        ("reviews_Beauty_5.json.gz", 2, "ts is missing"),
        ("reviews_Beauty_5.json.gz", 3, "not a JSON object"),
    ]
    with Store.open(tmp_path / "s.duckdb") as store:
        assert _events(store, "A1") == [("purchase", "B1", datetime(2014, 1, 30))]
        item = store.items(["B1"])["B1"]
        assert (item.title, item.brand, item.price, item.category) == ('Women\'s "Rose" oil', "Zed", 12.5, "Oils")
        assert item.attributes == {"path": "Beauty > Skin Care > Oils"}
        assert store.items(["B3"])["B3"].category == "Beauty"


def test_amazon_2018_reads_prices_as_they_were_scraped(tmp_path: Path) -> None:
    def meta(asin: str, price: str) -> str:
        return json.dumps(
            {
                "asin": asin,
                "title": "Dress",
                "brand": "Zed",
                "price": price,
                "category": ["Clothing", "Dresses", "<b>x</b>"],
            }
            | _MORE
        )

    folder = _write(
        tmp_path / "in",
        AMAZON_FASHION__json__gz='{"overall": 5.0, "reviewerID": "A1", "asin": "B1", "style": {"Size:": " L"}, "unixReviewTime": 1413763200}',
        meta_AMAZON_FASHION__json__gz="\n".join(
            meta(f"B{n}", price)
            for n, price in enumerate(["$1,012.99", "$10.50 - $20", "", ".a-box-inner{background-color:#fff}"], start=1)
        ),
    )
    assert ingest(tmp_path / "s.duckdb", "amazon-2018", [folder]).rejects == 0
    with Store.open(tmp_path / "s.duckdb") as store:
        items = store.items(["B1", "B2", "B3", "B4"])
        assert [items[f"B{n}"].price for n in range(1, 5)] == [1012.99, 10.5, None, None]
        assert (items["B1"].category, items["B1"].description) == ("Dresses", "Soft. Warm.")
        assert _events(store, "A1") == [("purchase", "B1", datetime(2014, 10, 20))]


_MORE = {"description": ["Soft.", "Warm."], "also_buy": ["X"], "details": {}}


def test_amazon_2023_joins_reviews_and_metadata_by_parent_asin(tmp_path: Path) -> None:
    review = {
        "rating": 5.0,
        "title": "Nice!",
        "asin": "B1-RED",
        "parent_asin": "B1",
        "user_id": "U1",
        "timestamp": 1588687728923,
        "images": [],
    }
    meta = {
        "main_category": "AMAZON FASHION",
        "title": "Linen dress",
        "price": 49.9,
        "store": "Zed",
        "categories": [],
        "parent_asin": "B1",
    }
    meta |= {
        "details": {"Color": "Red", "Is Discontinued": "No"},
        "features": ["100 % linen"],
        "description": [],
        "videos": [],
    }
    folder = _write(
        tmp_path / "in", All_Beauty__jsonl__gz=json.dumps(review), meta_All_Beauty__jsonl__gz=json.dumps(meta)
    )
    ingest(tmp_path / "s.duckdb", "amazon-2023", [folder])
    with Store.open(tmp_path / "s.duckdb") as store:
        assert _events(store, "U1") == [("purchase", "B1", datetime(2020, 5, 5, 14, 8, 48, 923000))]
        item = store.items(["B1"])["B1"]
        assert (item.title, item.brand, item.color, item.category, item.price) == (
            "Linen dress",
            "Zed",
            "Red",
            "AMAZON FASHION",
            49.9,
        )
        assert (item.description, item.attributes) == ("100 % linen", {"Color": "Red", "Is Discontinued": "No"})


@pytest.mark.slow
def test_amazon_m2_keeps_a_product_of_two_locales_apart(tmp_path: Path) -> None:
    folder = _write(
        tmp_path / "in",
        products_train__csv="""id,locale,title,price,brand,color,size,model,material,author,desc
        P1,DE,"Kleid, rot",19.99,Zed,rot,M,,Leinen,,Schön
        P1,UK,Red dress,17.5,Zed,red,M,,Linen,,Nice
        P2,JP,服,40000000.07,,,,,,,""",
        sessions_train__csv="prev_items,next_item,locale\n\"['P1' 'P2'\n 'P1']\",P3,DE\n['P1'],P2,UK\n[],,UK",
    )
    report = ingest(tmp_path / "s.duckdb", "amazon-m2", [folder])
    assert (report.users, report.events_new, report.items_new, report.items_unlisted, report.rejects) == (2, 6, 6, 3, 1)
    assert _rejects(tmp_path / "s.duckdb") == [("sessions_train.csv", 5, "prev_items holds no item")]
    with Store.open(tmp_path / "s.duckdb") as store:
        assert [e.item_id for e in store.history("S1")] == ["P1_DE", "P2_DE", "P1_DE", "P3_DE"]
        assert _events(store, "S2") == [
            ("click", "P1_UK", datetime(1970, 1, 1, 0, 0, 1)),
            ("click", "P2_UK", datetime(1970, 1, 1, 0, 0, 2)),
        ]
        items = store.items(["P1_DE", "P2_JP"])
        assert (items["P1_DE"].title, items["P1_DE"].parent_id) == ("Kleid, rot", "P1")
        assert items["P1_DE"].attributes == {"locale": "DE", "material": "Leinen"}
        assert (items["P2_JP"].title, items["P2_JP"].price) == ("服", None)


BEHAVIORS = (
    "1\tU1\t11/12/2019 2:14:46 PM\tN1 N2 N1\tN3-0 N4-1\n2\tU1\t11/11/2019 9:05:58 AM\tN1\tN5-1 N6-0\n"
    "3\tU2\t11/13/2019 12:00:01 AM\t\tN3-1\n4\tU3\tnoon\tN1\tN3-1\n5\tU4\t11/13/2019 1:00:00 AM\tN1\tN3"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "news",
    [
        'N1\tsports\tnfl\t"Quoted" start\tBig game.\thttps://x\t[]\t[]',
        'news_id\ttitle\tcategory\tsubcategory\tabstract\nN1\t"Quoted" start\tsports\tnfl\tBig game.',
    ],
    ids=["official", "with header"],
)
def test_mind_puts_the_history_before_the_first_day_and_clicks_at_their_impression(tmp_path: Path, news: str) -> None:
    report = ingest(tmp_path / "s.duckdb", "mind", [_write(tmp_path / "in", news__tsv=news, behaviors__tsv=BEHAVIORS)])
    assert (report.users, report.events_new, report.items_new, report.items_unlisted, report.exposures_new) == (
        3,
        7,
        5,
        4,
        0,
    )
    with Store.open(tmp_path / "s.duckdb") as store:
        before = [datetime(2019, 11, 10, 23, 59, 60 - seconds) for seconds in (3, 2, 1)]
        assert _events(store, "U1") == [
            *(("click", "N1", before[0]), ("click", "N2", before[1]), ("click", "N1", before[2])),
            ("click", "N5", datetime(2019, 11, 11, 9, 5, 58)),
            ("click", "N4", datetime(2019, 11, 12, 14, 14, 46)),
        ]
        assert _events(store, "U2") == [("click", "N3", datetime(2019, 11, 13, 0, 0, 1))]
        item = store.items(["N1"])["N1"]
        assert (item.title, item.category, item.description, item.attributes["subcategory"]) == (
            '"Quoted" start',
            "sports",
            "Big game.",
            "nfl",
        )
    assert _rejects(tmp_path / "s.duckdb") == [
        ("behaviors.tsv", 4, "time 'noon' is not like 11/12/2019 2:14:46 PM"),
        ("behaviors.tsv", 5, "an impression does not end in -0 or -1"),
    ]


@pytest.mark.slow
def test_recbole_reads_typed_headers_with_and_without_a_clock(tmp_path: Path) -> None:
    folder = _write(
        tmp_path / "in",
        ml__inter="user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t10\t4\t8.81250949E8\n1\t11\t4\t8.81250948E8",
        ml__item="item_id:token\tmovie_title:token_seq\tprice:float\tclass:token_seq\trelease_year:token\n10\tThe "
        '"Dress"\t3.5\tDrama Comedy\t1997',
        ml__user="user_id:token\tage:token\n1\t24",
    )
    ingest(tmp_path / "s.duckdb", "recbole", [folder])
    with Store.open(tmp_path / "s.duckdb") as store:
        assert _events(store, "1") == [
            ("click", "11", datetime(1997, 12, 4, 15, 55, 48)),
            ("click", "10", datetime(1997, 12, 4, 15, 55, 49)),
        ]
        item = store.items(["10"])["10"]
        assert (item.title, item.category, item.price, item.attributes) == (
            'The "Dress"',
            "Drama Comedy",
            3.5,
            {"release_year": "1997"},
        )
    plain = _write(tmp_path / "plain", ml__inter="user_id:token\titem_id:token\n1\t10\n2\t10\n1\t11")
    ingest(tmp_path / "t.duckdb", "recbole", [plain])
    with Store.open(tmp_path / "t.duckdb") as store:
        assert _events(store, "1") == [
            ("click", "10", datetime(1970, 1, 1, 0, 0, 1)),
            ("click", "11", datetime(1970, 1, 1, 0, 0, 2)),
        ]
    split = _write(tmp_path / "split", ml__inter="user_id:token\titem_id_list:token_seq\titem_id:token\n1\t10 11\t12")
    with pytest.raises(IngestError, match="no atomic file of one interaction"):
        ingest(tmp_path / "u.duckdb", "recbole", [split])


@pytest.mark.parametrize(
    "text",
    [
        "user,date,asin,title,category,group,price_usd,quantity\nF1,2019-07-07,B1,Old "
        "name,SHIRT,tops,8.0,1.0\nF1,2019-07-07,,X,SHIRT,tops,1,1\n"
        'F1,2020-01-07,B1,"Collar blouse, white",SHIRT,tops,8.52,5.0\nF1,2019-01-01,B1,,,,,1',
        "Order Date,Purchase Price Per Unit,Quantity,Shipping Address State,Title,ASIN/ISBN (Product "
        "Code),Category,Survey ResponseID\n"
        "2019-07-07,8.0,1.0,NJ,Old name,B1,SHIRT,F1\n2019-07-07,1.0,1.0,NJ,X,,SHIRT,F1\n"
        '2020-01-07,8.52,5.0,NJ,"Collar blouse, white",B1,SHIRT,F1\n2019-01-01,,1,NJ,,B1,,F1',
    ],
    ids=["extract", "original"],
)
def test_open_ecommerce_reads_orders_and_the_latest_facts_of_a_product(tmp_path: Path, text: str) -> None:
    folder = _write(tmp_path / "in", **{"amazon-purchases__csv": text})
    assert ingest(tmp_path / "s.duckdb", "open-ecommerce", [folder]).rejects == 1
    assert _rejects(tmp_path / "s.duckdb") == [("amazon-purchases.csv", 3, "item_id is missing")]
    with Store.open(tmp_path / "s.duckdb") as store:
        assert [ts for _, _, ts in _events(store, "F1")] == [
            datetime(2019, 1, 1),
            datetime(2019, 7, 7),
            datetime(2020, 1, 7),
        ]
        item = store.items(["B1"])["B1"]
        assert (item.title, item.category, item.price) == ("Collar blouse, white", "SHIRT", 8.52)
        assert "NJ" not in str(item)


def test_uci_eshop_composes_a_title_and_says_so(tmp_path: Path) -> None:
    head = "year;month;day;order;country;session ID;page 1 (main category);page 2 (clothing model);colour;location;"
    head += "model photography;price;price 2;page"
    rows = (
        "2008;4;1;2;29;7;2;B4;10;2;1;52;1;1\n2008;4;1;1;29;7;1;A13;9;5;2;28;2;1\n"
        "2008;4;31;1;29;8;1;A13;3;5;2;28;2;1\n2008;4;2;1;29;9;1;A13;9;5;2;28;2;1"
    )
    report = ingest(tmp_path / "s.duckdb", "uci-eshop", [_write(tmp_path / "in", clicks__csv__gz=head + "\n" + rows)])
    assert (report.users, report.events_new, report.rejects) == (2, 3, 1)
    with Store.open(tmp_path / "s.duckdb") as store:
        assert _events(store, "S7") == [
            ("click", "A13", datetime(2008, 4, 1, 0, 0, 1)),
            ("click", "B4", datetime(2008, 4, 1, 0, 0, 2)),
        ]
        items = store.items(["A13", "B4"])
        assert (items["A13"].title, items["A13"].color, items["A13"].price) == (
            "Multicolored trousers A13",
            "multicolored",
            28.0,
        )
        assert items["B4"].title == "Olive skirt B4"
        assert items["B4"].attributes == {
            "title": "composed from attributes",
            "photo": "en face",
            "price_above_category_average": "yes",
        }


def test_every_format_says_what_it_expects() -> None:
    assert set(FORMATS) == {
        *("auto", "tables", "sequences", "amazon-2014", "amazon-2018", "amazon-2023", "amazon-m2", "mind", "recbole"),
        *("open-ecommerce", "uci-eshop", "instacart"),
    }
    assert all(form.about for form in FORMATS.values())


# -- the real sets -----------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(
    ("form", "folder", "users", "items", "events", "user", "title"),
    [
        (
            "sequences",
            "amazon-beauty-2014",
            22363,
            12101,
            198502,
            "A1YJEY40YUW4SE",
            "Curl Junkie Daily Fix Cleansing Hair Conditioner - 12 oz",
        ),
        (
            "open-ecommerce",
            "fashion-purchases",
            888,
            19160,
            20082,
            "F732e2ba2d1",
            "French Toast Girls' Short Sleeve Peter Pan Collar Blouse",
        ),
        ("uci-eshop", "eshop-clothing-2008", 24026, 217, 165474, "S1", "Beige trousers A13"),
        ("mind", "mind-sample", 4637, 20551, 146474, "U81994", "Best, worst QB performances from NFL Week 7"),
    ],
)
def test_a_real_set_is_read_whole_and_quickly(
    data_folder: Path,
    tmp_path: Path,
    form: str,
    folder: str,
    users: int,
    items: int,
    events: int,
    user: str,
    title: str,
) -> None:
    report = ingest(tmp_path / "s.duckdb", form, [data_folder / folder])
    assert (report.users, report.items_new, report.events_new, report.rejects) == (users, items, events, 0)
    assert report.seconds < 10
    assert ingest(tmp_path / "s.duckdb", form, [data_folder / folder]).events_new == 0
    with Store.open(tmp_path / "s.duckdb") as store:
        assert store.has_user(user)
        assert any(item.title == title for item in store.find_items(title.split(",")[0], limit=50))
        history = store.history(user)
        assert [event.seq for event in history] == list(range(1, len(history) + 1))


@pytest.mark.slow
def test_forty_thousand_bad_lines_take_seconds_and_are_all_kept(tmp_path: Path) -> None:
    """They were noted one by one, which took minutes."""
    rows = "u,2025-01-01,click,I,extra\n" * 40_000
    (tmp_path / "events.csv").write_text("user_id,ts,action,item_id\nu,2025-01-01,click,I\n" + rows)
    report = ingest(tmp_path / "s.duckdb", "tables", [tmp_path / "events.csv"])
    assert (report.events_new, report.rejects) == (1, 40_000)
    assert report.seconds < 10
