"""What cells mean: prices, times, stock words, event names, empty cells and ids, each column read whole. Much of it
broke a real export once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recgraph.cli import main
from recgraph.errors import IngestError, SettingsError
from recgraph.store.connection import CONFIG
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest
from recgraph.store.ingest.report import IngestReport
from recgraph.store.ingest.times import read_times
from recgraph.store.ingest.values import read_prices
from recgraph.store.records import parse_time
from recgraph.tools.retrieve import eligible


def _ingest(
    folder: Path, mapping: dict[str, str] | None = None, *, complete: bool = False, **files: str
) -> IngestReport:
    """Files by name (two underscores are a dot) through the format tables, into folder/s.duckdb."""
    place = folder / "in"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    for name, text in files.items():
        (place / name.replace("__", ".")).write_text(
            "\n".join(line.strip(" ") for line in text.strip().splitlines()) + "\n", encoding="utf-8"
        )
    return ingest(folder / "s.duckdb", "tables", [place], mapping, complete=complete)


def _store(folder: Path) -> Store:
    return Store.open(folder / "s.duckdb")


def _actions(folder: Path, user: str) -> list[tuple[str, str]]:
    with _store(folder) as store:
        return [(event.action, event.item_id) for event in store.history(user)]


@pytest.fixture(scope="module")
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config=CONFIG) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def _prices(
    cursor: duckdb.DuckDBPyConnection, *texts: str, decimal: str = "", typed: bool = False
) -> tuple[list[float | None], tuple[str, ...]]:
    cursor.execute("CREATE OR REPLACE TEMP TABLE given AS SELECT unnest(?::VARCHAR[]) AS x", [list(texts)])
    column = read_prices(cursor, "given", "x", decimal, typed)
    return [price for (price,) in cursor.execute(f"SELECT {column.value} FROM given").fetchall()], column.notes  # noqa: S608


def _times(cursor: duckdb.DuckDBPyConnection, *texts: str, form: str = "") -> list[datetime | None]:
    cursor.execute("CREATE OR REPLACE TEMP TABLE given AS SELECT unnest(?::VARCHAR[]) AS x", [list(texts)])
    column = read_times(cursor, "given", "x", "events.ts", form)
    return [moment for (moment,) in cursor.execute(f"SELECT {column.value} FROM given").fetchall()]  # noqa: S608


# -- prices ------------------------------------------------------------------------------------------------------------


def test_prices_of_one_column_in_many_spellings_are_never_a_silent_factor(tmp_path: Path) -> None:
    """They were 1.30, 1.00, 125.00, 99.00, 1.00, 1.23, 1.00 and 1.00 without a word."""
    rows = [
        "a;1.299,00",
        "b;1 234,56",
        "c;12,5",
        "d;.99",
        "e;1'234.50",
        "f;1.234,56 €",
        "g;1e3",
        "h;kr 1 299,00",
        "i;-5.00",
        "j;1.000",
    ]
    report = _ingest(tmp_path, items__csv="item_id;price\n" + "\n".join(rows))
    with _store(tmp_path) as store:
        prices = {key: item.price for key, item in store.items([row[0] for row in rows]).items()}
        reasons = [(reject.line, reject.reason.split(";")[0]) for reject in store.rejects()]
    known = {"a": 1299.0, "b": 1234.56, "c": 12.5, "d": 0.99, "e": 1234.5, "f": 1234.56, "g": 1000.0, "h": 1299.0}
    assert prices == known | {"i": None, "j": None}
    doubt = "price '1.000' may be a thousand times more or less: its column has both marks"
    assert reasons == [(10, "price '-5.00' is negative"), (11, doubt)]
    assert (report.rejects, report.rows_lost, report.items_new) == (2, 0, 10)


@pytest.mark.parametrize(
    ("texts", "prices"),
    [
        (["1.299,00", "1.000", "129"], [1299, 1000, 129]),  # the whole column decides
        (["$0.99", "USD 1,234.56", "1,000", "$10.50 - $20"], [0.99, 1234.56, 1000, 10.5]),
        (["ab 12,50", "CHF 5.-", "1.299,-", "5,--"], [12.5, 5, 1299, 5]),
        (["₹1,00,000", "₹999"], [100000, 999]),
        (["1\u00a0234,56", "1\u2009234,56", "1\u202f299"], [1234.56, 1234.56, 1299]),
        (["1’234.50", "2'000"], [1234.5, 2000]),
        (["(5.00)", "5.00-", "-$5", "free", "2 x 9.99", "12 50", "50 %"], [None] * 7),
        (["Rs. 1,299.00", "R$ 1299.90"], [1299, 1299.9]),
        (["1.234.567", "1.000"], [1234567, 1000]),
        (["0.125", "1.250"], [0.125, 1.25]),
        (["29.990000000000002", "3.5"], [29.990000000000002, 3.5]),
        (["12,50 €", "9 €", ""], [12.5, 9, None]),
        (["EUR 1299", "1299 EUR", "1299€"], [1299, 1299, 1299]),
    ],
)
def test_a_price_is_read_by_its_column(
    cursor: duckdb.DuckDBPyConnection, texts: list[str], prices: list[float | None]
) -> None:
    assert _prices(cursor, *texts) == (prices, ())


def test_a_price_that_nothing_decides_is_a_thousand_with_a_note_or_what_the_option_says(
    cursor: duckdb.DuckDBPyConnection,
) -> None:
    found, notes = _prices(cursor, "1.000", "12.500")
    assert (found, len(notes)) == ([1000, 12500], 1)
    assert "2 prices such as 1.000 read as thousands" in notes[0]
    assert "items.price:decimal" in notes[0]
    assert _prices(cursor, "1.000", decimal=".") == ([1.0], ())
    assert _prices(cursor, "1.000", decimal=",") == ([1000.0], ())
    assert _prices(cursor, "1.000", typed=True)[0] == [1.0]  # JSON and Parquet keep numbers as numbers
    found, notes = _prices(cursor, "9.99", "1.299")
    assert (found, notes[0].split(",")[0]) == ([9.99, 1.299], "1 prices such as 1.299 read with a decimal '.'")


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=8),
    st.sampled_from([",.", ".,", " ,", "'."]),
    st.sampled_from(["{}", "{} €", "$ {}"]),
)
def test_any_amount_with_two_decimals_comes_back_from_any_common_notation(
    cursor: duckdb.DuckDBPyConnection, cents: list[int], marks: str, frame: str
) -> None:
    texts = [
        frame.format(f"{amount // 100:,}#{amount % 100:02d}".replace(",", marks[0]).replace("#", marks[1]))
        for amount in cents
    ]
    assert _prices(cursor, *texts) == ([pytest.approx(amount / 100) for amount in cents], ())


# -- times -------------------------------------------------------------------------------------------------------------

MAY = datetime(2026, 5, 14, 11, 23, 45)
SPELLINGS = [
    *(
        "2026-05-14 11:23:45",
        "2026-05-14T11:23:45Z",
        "2026-05-14 11:23:45 UTC",
        "2026-05-14 12:23:45 +0100",
        "2026-05-14T12:23:45+01:00",
    ),
    *(
        "2026-05-14 12:23:45+01",
        "2026-05-14 07:53:45 -0330",
        "20260514112345",
        "14.05.2026 11:23:45",
        "14/05/2026 11:23:45",
        "05/14/2026 11:23:45 AM",
    ),
    *(
        "14 May 2026 11:23:45",
        "May 14, 2026 11:23:45 AM",
        "14-May-2026 11:23:45",
        "2026/05/14 11:23:45",
        "1778757825",
        "1778757825000",
        "1778757825000000",
    ),
]
IN_FILES = [
    *(
        "Thu May 14 2026 13:23:45 GMT+0200 (CEST)",
        "Thu, 14 May 2026 11:23:45 +0000",
        "Thu May 14 11:23:45 UTC 2026",
        "14/May/2026:11:23:45 +0000",
    ),
    *(
        "20260514T112345Z",
        "2026-05-14T13:23:45+02:00[Europe/Berlin]",
        "2026-05-14 07:23:45 EDT",
        "14.05.26 11:23:45",
        "1778757825000000000",
    ),
    *(
        "1778757825.0",
        "1.778757825e9",
        "46156.4748263889",
        "2026-05-14T11:23:45.000000000Z",
        "2026-05-14 11:23:45,000",
        "14. May 2026 11:23:45",
    ),
    *("14-05-2026 11:23:45", "2026.05.14 11:23:45", "14/05/2026, 11:23:45", "May 14th, 2026 at 11:23:45 AM"),
]


@pytest.mark.parametrize("text", [*SPELLINGS, *IN_FILES])
def test_a_time_is_read_in_every_common_spelling(cursor: duckdb.DuckDBPyConnection, text: str) -> None:
    assert _times(cursor, text) == [MAY]


@pytest.mark.parametrize("text", SPELLINGS)
def test_as_of_reads_the_same_spellings(text: str) -> None:
    assert parse_time(text) == MAY


@pytest.mark.parametrize(
    ("texts", "moments"),
    [
        (["20260514", "20260515"], [datetime(2026, 5, 14), datetime(2026, 5, 15)]),
        (["2026051411", "2026051412"], [datetime(2026, 5, 14, 11), datetime(2026, 5, 14, 12)]),
        (["20260514.0"], [datetime(2026, 5, 14)]),
        (["46156", "46157"], [datetime(2026, 5, 14), datetime(2026, 5, 15)]),
        (
            ["1", "2", "40000"],
            [datetime(1970, 1, 1, 0, 0, 1), datetime(1970, 1, 1, 0, 0, 2), datetime(1970, 1, 1, 11, 6, 40)],
        ),  # event numbers
        (["3/4/2026", "13/4/2026"], [datetime(2026, 4, 3), datetime(2026, 4, 13)]),
        (["3/4/2026", "4/13/2026"], [datetime(2026, 3, 4), datetime(2026, 4, 13)]),
        (["3.4.2026"], [datetime(2026, 4, 3)]),
        (["3/4/2026", "12/12/2026"], [None, None]),
        (["2026-05-14 12:30 AM", "2026-05-14 12:30 PM"], [datetime(2026, 5, 14, 0, 30), datetime(2026, 5, 14, 12, 30)]),
        (["1778757825", "0", "1778757825"], [MAY, None, MAY]),
        (["2026-05-14", "2026-02-30", "14.05.2026", "yesterday"], [datetime(2026, 5, 14), None, None, None]),
    ],
)
def test_a_column_of_times_is_read_in_one_way(
    cursor: duckdb.DuckDBPyConnection, texts: list[str], moments: list[datetime | None]
) -> None:
    assert _times(cursor, *texts) == moments


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.datetimes(datetime(1975, 1, 1), datetime(2060, 1, 1)), min_size=1, max_size=5),
    st.sampled_from(
        [
            "%Y-%m-%d %H:%M:%S",
            "%Y-%m-%dT%H:%M:%SZ",
            "%d.%m.%Y %H:%M:%S",
            "%d %B %Y %H:%M:%S",
            "%b %d, %Y %I:%M:%S %p",
            "%Y%m%d%H%M%S",
        ]
    ),
)
def test_any_moment_comes_back_from_any_common_form(
    cursor: duckdb.DuckDBPyConnection, moments: list[datetime], form: str
) -> None:
    whole = [moment.replace(microsecond=0) for moment in moments]
    assert _times(cursor, *(moment.strftime(form) for moment in whole)) == whole


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=25), max_size=6))
def test_no_text_breaks_the_reading_of_a_column(cursor: duckdb.DuckDBPyConnection, texts: list[str]) -> None:
    clean = [text.replace("\x00", "") for text in texts]
    moments, (prices, _) = _times(cursor, *clean), _prices(cursor, *clean)
    assert len(moments) == len(prices) == len(clean)
    assert all(price is None or price >= 0 for price in prices)


def test_an_eight_digit_date_is_no_day_of_august_1970(tmp_path: Path) -> None:
    rows = "u1,20260514,purchase,A\nu2,20260514112345,purchase,A\nu3,202605141123,purchase,A\nu4,46156.474,purchase,A"
    report = _ingest(tmp_path, events__csv="user_id,ts,action,item_id\n" + rows)
    with _store(tmp_path) as store:
        assert [store.history(f"u{n}")[0].ts for n in (1, 2, 3)] == [datetime(2026, 5, 14), MAY, MAY.replace(second=0)]
        assert store.rejects()[0].reason.startswith(
            "ts '46156.474' is not like the others of its column, dates such as 20260514"
        )
    assert report.events_new == 3
    assert (
        CliRunner()
        .invoke(main, ["history", "--user", "u1", "--as-of", "20260515", "--store", str(tmp_path / "s.duckdb")])
        .output.count("purchase")
        == 1
    )


@pytest.mark.slow
def test_a_date_format_is_told_by_an_option_that_the_reject_names(tmp_path: Path) -> None:
    rows = "u1;2026-05-14 11:23:45 +0100;A\nu2;12/1/2010 8:26;A\nu3;14.05.2026 11:23;A\nu4;2026-05-14 11:23:45,123;A\nu5;2026-05-14 11:23:45;A"
    report = _ingest(tmp_path, {"events.action": "=purchase"}, events__csv="user_id;ts;item_id\n" + rows)
    with _store(tmp_path) as store:
        assert [store.history(user)[0].ts for user in ("u1", "u4", "u5")] == [
            MAY - timedelta(hours=1),
            MAY.replace(microsecond=123000),
            MAY,
        ]
        assert [reject.line for reject in store.rejects() if "--map 'events.ts:format=" in reject.reason] == [3, 4]
    assert (report.rows, report.rows_lost, report.alarming) == (5, 2, True)
    slashes = "user_id;ts;item_id\nu6;12/1/2010 8:26;A\nu7;1/2/2010 9:00;A"
    with pytest.raises(
        IngestError, match=r"may be day or month first.*--map 'events\.ts:format=%d/%m/%Y %H:%M' or %m/%d/%Y %H:%M"
    ):
        _ingest(tmp_path, {"events.action": "=purchase"}, events__csv=slashes)
    for form, month in (("%m/%d/%Y %H:%M", 12), ("%d/%m/%Y %H:%M", 1), ("%d/%m/%Y", 1)):
        _ingest(
            tmp_path / str(hash(form)) if (tmp_path / str(hash(form))).mkdir() is None else tmp_path,
            {"events.action": "=purchase", "events.ts:format": form},
            events__csv=slashes,
        )
        with _store(tmp_path / str(hash(form))) as store:
            assert store.history("u6")[0].ts.month == month
    with pytest.raises(IngestError, match="no time format"):
        _ingest(tmp_path, {"events.action": "=purchase", "events.ts:format": "day first"}, events__csv=slashes)


@pytest.mark.parametrize("text", ["99999999999999999999", "yesterday", "3/4/2026", "", "9999-12-31T23:59:59-05:00"])
def test_what_is_no_time_is_one_sentence_for_as_of(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a time"):
        parse_time(text)


# -- event names -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_names_of_events_of_other_shops_are_understood(tmp_path: Path) -> None:
    names = [
        "view",
        "cart",
        "remove_from_cart",
        "add_to_cart",
        "transaction",
        "Product Viewed",
        "Order Completed",
        "PV",
        "view_item_list",
        "stare",
    ]
    rows = "\n".join(f"2019-10-01 00:0{n}:00 UTC,{name},p1,u1" for n, name in enumerate(names))
    mapping = {"events.ts": "event_time", "events.action": "event_type", "events.item_id": "product_id"}
    report = _ingest(tmp_path, mapping, events__csv="event_time,event_type,product_id,user_id\n" + rows)
    assert [action for action, _ in _actions(tmp_path, "u1")] == [
        "click",
        "cart",
        "cart",
        "purchase",
        "click",
        "purchase",
        "click",
    ]
    assert {one.reason: (one.count, one.example) for one in report.rejected} == {
        "action 'remove_from_cart' takes something out of a cart": (1, "events.csv:4"),
        "action 'stare' is none of search, click, cart, purchase": (1, "events.csv:11"),
        "action 'view_item_list' is what a shopper was shown, not what they did; without query it tells nothing": (
            1,
            "events.csv:10",
        ),
    }
    report = _ingest(
        tmp_path,
        {**mapping, "events.action:stare": "click", "events.action:REMOVE from cart": "ignore"},
        events__csv="event_time,event_type,product_id,user_id\n" + rows,
    )
    assert (report.events_new, len(report.rejected)) == (1, 1)
    assert "1 events of action 'remove_from_cart' left out, as the mapping says" in report.notes[0]
    with pytest.raises(IngestError, match=r"events\.action:stare is 'glance'"):
        _ingest(tmp_path, {"events.action:stare": "glance"}, events__csv="user_id,ts,action,item_id\nu,1,click,A")


def test_an_impression_with_its_query_and_position_is_an_exposure(tmp_path: Path) -> None:
    report = _ingest(
        tmp_path,
        events__csv="user_id,ts,action,item_id,query,position\nu,2026-05-01,impression,A,red "
        "dress,2\nu,2026-05-01,click,A,red dress,2",
    )
    assert (report.exposures_new, report.events_new, report.rejects) == (1, 1, 0)


# -- stock -------------------------------------------------------------------------------------------------------------


def test_stock_words_of_the_usual_feeds_and_an_unknown_one_offers_nothing(tmp_path: Path) -> None:
    on = [
        "in stock",
        "in_stock",
        "InStock",
        "https://schema.org/InStock",
        "backorder",
        "preorder",
        "15",
        "y",
        "true",
        "1.0",
        "onbackorder",
        "3 left",
        "10+",
        "dostępny",
        "在庫あり",
        "",
    ]
    off = [
        "out of stock",
        "outofstock",
        "n",
        "-3",
        "0",
        "https://schema.org/OutOfStock",
        "SoldOut",
        "sold out",
        "discontinued",
        "no",
        "0+",
        "nicht vorrätig",
        "rupture de stock",
        "yok",
        "perhaps",
    ]
    rows = "\n".join(
        f"{side}{n:02d}\t{word}" for side, words in (("A", on), ("B", off)) for n, word in enumerate(words)
    )
    report = _ingest(tmp_path, {"items.in_stock": "availability"}, items__tsv="item_id\tavailability\n" + rows)
    with _store(tmp_path) as store:
        catalogue = store.catalogue()
        assert {key[0]: bool(flag) for key, flag in zip(catalogue.item_ids, catalogue.offered, strict=True)} == {
            "A": True,
            "B": False,
        }
        assert [key for key, flag in zip(catalogue.item_ids, catalogue.offered, strict=True) if flag] == [
            f"A{n:02d}" for n in range(len(on))
        ]
        assert [reject.reason for reject in store.rejects()] == [
            "in_stock 'perhaps' is no stock word; the item was kept off sale"
        ]
    assert report.rows_lost == 0


# -- empty cells and ids -----------------------------------------------------------------------------------------------


def test_placeholders_are_empty_in_every_column(tmp_path: Path) -> None:
    words = ["N/A", "null", "None", "#N/A", "nan", "NaN", "-", "(not set)", "undefined", "(none)", '""']
    _ingest(
        tmp_path,
        items__tsv="item_id\ttitle\tbrand\n" + "\n".join(f"i{n}\t{word}\t{word}" for n, word in enumerate(words)),
    )
    with _store(tmp_path) as store:
        assert {(item.title, item.brand) for item in store.items([f"i{n}" for n in range(len(words))]).values()} == {
            ("", "")
        }


def test_an_anonymous_shopper_is_their_session_and_never_called_na(tmp_path: Path) -> None:
    rows = "1;NA;2016-05-09;A\n2;nan;2016-05-10;B\n3;null;2016-05-11;C\n4;(not set);2016-05-11;C\n;None;2016-05-11;C\n6;ann;2016-05-12;A"
    report = _ingest(tmp_path, {"events.action": "=click"}, events__csv="session_id;user_id;ts;item_id\n" + rows)
    with _store(tmp_path) as store:
        assert sorted(row.user_id for row in store.users()) == [
            "ann",
            "session:1",
            "session:2",
            "session:3",
            "session:4",
        ]
    assert [(one.reason, one.count) for one in report.rejected] == [("user_id is missing", 1)]


def test_a_word_for_all_who_are_not_logged_in_is_no_shopper(tmp_path: Path) -> None:
    rows = "1;guest;2016-05-09;A\n2;Anonymous;2016-05-10;B\n;unknown;2016-05-11;C\n3;-1;2016-05-11;C\n4;0;2016-05-12;A\n5;guesthouse;2016-05-12;A"
    report = _ingest(tmp_path, {"events.action": "=click"}, events__csv="session_id;user_id;ts;item_id\n" + rows)
    with _store(tmp_path) as store:
        users = ["0", "guesthouse", "session:1", "session:2", "session:3"]
        assert sorted(row.user_id for row in store.users()) == users
    assert [(one.reason, one.count) for one in report.rejected] == [("user_id is missing", 1)]


@pytest.mark.parametrize("pieces", ["-1", "−1", "(1)", '"-1,0"'])
def test_a_negative_quantity_is_a_return_however_it_is_written(tmp_path: Path, pieces: str) -> None:
    rows = f"u,2026-05-01,A,1\nu,2026-05-02,A,{pieces}"
    _ingest(tmp_path, {"events.action": "=purchase"}, events__csv="user_id,ts,item_id,quantity\n" + rows)
    with _store(tmp_path) as store:
        assert store.users() == []


@pytest.mark.slow
def test_ids_that_a_spreadsheet_made_floats_are_the_same_ids(tmp_path: Path) -> None:
    items = "item_id,title,parent_id\n10002,Shirt,7.0\n10003,Skirt,7.0"
    report = _ingest(
        tmp_path,
        items__csv=items,
        events__csv="user_id,ts,action,item_id\n12.0,2026-05-01,click,10002.0\n,2026-05-01,click,1\n13.0,2026-05-01,click,10003.0",
    )
    assert _actions(tmp_path, "12") == [("click", "10002")]
    with _store(tmp_path) as store:
        assert store.items(["10002"])["10002"].parent_id == "7"
    assert report.items_unlisted == 0
    _ingest(tmp_path, items__csv="item_id,title\n1.0,A\n1.5,B")  # versions, not numbers that lost their form
    with _store(tmp_path) as store:
        assert sorted(store.items(["1.0", "1.5"])) == ["1.0", "1.5"]


def test_an_id_that_lost_its_digits_does_not_keep_the_others_floats(tmp_path: Path) -> None:
    rows = "u,2026-05-01,click,10002.0\nu,2026-05-02,click,1.0003E+04"
    report = _ingest(
        tmp_path, items__csv="item_id,title\n10002,Shirt", events__csv="user_id,ts,action,item_id\n" + rows
    )
    assert _actions(tmp_path, "u") == [("click", "10002"), ("click", "1.0003E+04")]
    assert any("1.0003E+04" in note for note in report.notes)


def test_zero_bytes_are_no_part_of_an_id_or_a_title(tmp_path: Path) -> None:
    _ingest(tmp_path, items__csv="item_id,title\nA\0\0,Red\0tee\0")
    with _store(tmp_path) as store:
        assert store.items(["A"])["A"].title == "Red tee"


@pytest.mark.slow
def test_ids_that_differ_by_lost_zeros_are_told(tmp_path: Path) -> None:
    report = _ingest(
        tmp_path,
        items__csv="item_id,title\n00123,A\n00200,B",
        events__csv="user_id,ts,action,item_id\nu,2026-05-01,click,123",
    )
    assert any("00123 and 123" in note for note in report.notes)
    later = _ingest(tmp_path, events__csv="user_id,ts,action,item_id\nu,2026-05-01,click,200")
    assert any("such as 200 and 00200" in note for note in later.notes)


def test_the_last_value_that_is_not_empty_counts_within_a_file_too(tmp_path: Path) -> None:
    rows = 'A,Red shirt,Zed,9,"{""fit"": ""slim""}"\nA,,Aya,,\nA,,,12,'
    _ingest(tmp_path, items__csv="item_id,title,brand,price,attributes\n" + rows)
    with _store(tmp_path) as store:
        item = store.items(["A"])["A"]
    assert (item.title, item.brand, item.price, item.attributes) == ("Red shirt", "Aya", 12.0, {"fit": "slim"})


# -- returns -----------------------------------------------------------------------------------------------------------

ORDERS = {
    "events.user_id": "CustomerID",
    "events.item_id": "StockCode",
    "events.ts": "InvoiceDate",
    "events.action": "=purchase",
}


@pytest.mark.slow
def test_a_return_takes_back_the_purchase_before_it_and_a_discount_is_none(tmp_path: Path) -> None:
    rows = "536379,A,1,2010-12-01 09:00,c1\nC536380,A,-1,2010-12-01 09:41,c1\nC536381,D,-1,2010-12-01 09:50,c2\n536382,B,2,2010-12-02 09:00,c1"
    text = "InvoiceNo,StockCode,Quantity,InvoiceDate,CustomerID\n" + rows
    for _ in range(2):
        report = _ingest(
            tmp_path, ORDERS, events__csv=text, items__csv="item_id,title\nA,White mug\nB,Plate\nD,Discount"
        )
        assert _actions(tmp_path, "c1") == [("purchase", "B")]
        assert _actions(tmp_path, "c2") == []
        assert "1 purchases came back and do not count" in report.notes
        assert "1 returns have no purchase before them and change nothing" in report.notes


@pytest.mark.slow
def test_a_return_of_a_later_file_takes_back_what_the_store_has_for_good(tmp_path: Path) -> None:
    head = "user_id,ts,action,item_id\n"
    bought = head + "u,2026-01-01,purchase,A\nu,2026-02-01,purchase,A\nu,2026-04-01,purchase,A\nu,2026-02-02,click,A"
    _ingest(tmp_path, events__csv=bought)
    report = _ingest(tmp_path, events__csv=head + "u,2026-03-01,refund,A")
    assert "1 purchases came back and do not count" in report.notes
    for again in (head + "u,2026-03-01,refund,A", bought, bought + "\nu,2026-03-01,refund,A"):
        with _store(tmp_path) as store:
            assert [(event.seq, event.action, event.ts.month) for event in store.history("u")] == [
                (1, "purchase", 1),
                (3, "click", 2),
                (4, "purchase", 4),
            ]
        assert _ingest(tmp_path, events__csv=again).events_new == 0


# -- the catalogue -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_once_there_is_a_catalogue_what_events_alone_name_is_history(tmp_path: Path) -> None:
    events = "user_id,ts,action,item_id\nu1,2026-05-01 10:00,click,A\nu2,2026-05-01 10:00,purchase,gone-2019"
    report = _ingest(tmp_path, events__csv=events)
    with _store(tmp_path) as store:
        assert store.catalogue().offered.tolist() == [True, True]  # nothing else is known of the shop
    report = _ingest(tmp_path, items__csv="item_id,title\nA,Red tee\nB,Blue tee", events__csv=events)
    assert (report.items_new, report.items_changed) == (1, 1)
    with _store(tmp_path) as store:
        catalogue = store.catalogue()
        assert dict(zip(catalogue.item_ids, catalogue.offered.tolist(), strict=True)) == {
            "A": True,
            "B": True,
            "gone-2019": False,
        }
        assert store.items(["gone-2019"])["gone-2019"].offered is False
        assert eligible(catalogue, None).tolist() == [True, True, False]  # what retrieval may bring
        before = store.revision()
    late = _ingest(tmp_path, events__csv="user_id,ts,action,item_id\nu1,2026-05-02,click,old")
    assert late.items_unlisted == 1
    report = _ingest(tmp_path, items__csv="item_id,title\nB,Blue tee", complete=True)
    with _store(tmp_path) as store:
        catalogue = store.catalogue()
        assert [key for key, flag in zip(catalogue.item_ids, catalogue.offered, strict=True) if flag] == ["B"]
        assert store.revision() != before
    assert report.items_off_sale == 1
    assert _ingest(tmp_path, items__csv="item_id,title\nA,Red tee").items_changed == 1  # it is back
    with pytest.raises(IngestError, match="list no product"):
        _ingest(tmp_path, events__csv=events, complete=True)


# -- a wrong clock -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_event_of_the_future_or_years_after_all_others_is_kept_out_of_popularity(tmp_path: Path) -> None:
    usual = [f"u{n},2019-05-{1 + n % 28:02d},click,A" for n in range(40)]
    future = f"{datetime.now(UTC).year + 3}-01-01"
    for wrong in (future, "2024-01-01"):
        folder = tmp_path / wrong
        folder.mkdir()
        report = _ingest(folder, events__csv="\n".join(["user_id,ts,action,item_id", *usual, f"x,{wrong},purchase,B"]))
        assert "1 events lie in the future or years after all others" in report.notes[0]
        with _store(folder) as store:
            assert store.popular(days=30) == [("A", 40)]
            assert store.popular() == [("A", 40)]
    plain = tmp_path / "plain"
    plain.mkdir()
    assert (
        _ingest(plain, events__csv="\n".join(["user_id,ts,action,item_id", *usual, "x,2020-03-01,purchase,B"])).notes
        == ()
    )
    with _store(plain) as store:
        assert store.popular(days=30) == [("B", 3)]


# -- the report and the commands ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_ingest_that_loses_more_than_a_fifth_fails_loudly_and_keeps_the_rest(tmp_path: Path) -> None:
    path = str(tmp_path / "s.duckdb")
    (tmp_path / "events.csv").write_text(
        "user_id,ts,action,item_id\nu1,2026-05-14,purchase,A\nu2,2026-05-14,stare,A\nu3,2026-05-15,stare,A\nu4,,click,A\n"
    )
    done = CliRunner().invoke(main, ["ingest", "tables", str(tmp_path / "events.csv"), "--store", path])
    assert done.exit_code == 1
    assert "3 of 4 rows (75%) were rejected" in " ".join(done.output.split())
    assert "2  action 'stare' is none of search" in done.output
    assert _actions(tmp_path, "u1") == [("purchase", "A")]
    shown = CliRunner().invoke(main, ["rejects", "--store", path]).output.splitlines()
    assert [line.split()[0] for line in shown[:2]] == ["2", "1"]
    assert all(len(line) <= 80 for line in shown)
    assert '"user_id"' in CliRunner().invoke(main, ["rejects", "--store", path, "--json"]).output.replace("\\", "")
    only = CliRunner().invoke(main, ["rejects", "--store", path, "--reason", "TS is"]).output
    assert "ts is missing" in only
    assert "stare" not in only


@pytest.mark.slow
def test_forget_takes_out_a_shopper_or_a_product_and_says_what_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the snapshots of a checkout that was trained in would be named too
    path = str(tmp_path / "s.duckdb")
    rows = "ann,2026-05-01,click,A\nbob,2026-05-01,click,B\nann,2026-05-02,purchase,A\nann,never,click,A\nann2,never,click,A"
    _ingest(
        tmp_path, items__csv="item_id,title\nA,Red\nB,Blue\nC,Green", events__csv="user_id,ts,action,item_id\n" + rows
    )
    asked = CliRunner().invoke(main, ["forget", "--user", "ann", "--store", path], input="n\n")
    assert asked.exit_code == 1
    assert len(_actions(tmp_path, "ann")) == 2
    done = CliRunner().invoke(main, ["forget", "--user", "ann", "--store", path, "--yes"])
    assert (done.exit_code, done.output) == (0, "shopper ann: 2 events, 1 rejected rows.\n")
    assert CliRunner().invoke(main, ["forget", "--user", "ann", "--store", path, "--yes"]).exit_code == 1
    assert CliRunner().invoke(main, ["forget", "--store", path]).exit_code == 2
    for item in ("B", "C"):
        assert CliRunner().invoke(main, ["forget", "--item", item, "--store", path, "--yes"]).exit_code == 0
    with _store(tmp_path) as store:
        catalogue = store.catalogue()
        assert dict(zip(catalogue.item_ids, catalogue.offered.tolist(), strict=True)) == {
            "A": True,
            "B": False,
        }  # bob looked at B
        assert store.items(["B"])["B"].title == ""
        assert [reject.raw for reject in store.rejects() if '"ann"' in reject.raw] == []
        assert len(store.rejects()) == 1
