"""Files as they come: compression, archives, encodings, layouts, workbooks, JSON and XML of any shape become rows,
or one sentence says why not."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import pytest
import zstandard

from recgraph.errors import IngestError
from recgraph.store.db import Store
from recgraph.store.files import plain
from recgraph.store.files.layout import layout_of
from recgraph.store.files.plain import guessed_encoding
from recgraph.store.ingest.load import IngestReport, ingest, preview

ITEMS = "item_id,title\nk1,Café tee\nk2,Plain tee\n"


def _ingest(folder: Path, name: str, data: bytes | str, form: str = "tables", **mapping: str) -> IngestReport:
    """One file into a store beside it; a mapping's first underscore is the dot: items_title="Name"."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    renamed = {key.replace("_", ".", 1): value for key, value in mapping.items()}
    return ingest(folder / "s.duckdb", form, [folder / name], renamed or None)


def _titles(folder: Path) -> dict[str, str]:
    with Store.open(folder / "s.duckdb") as store:
        return {item.item_id: item.title for item in store.find_items("", limit=50)}


def _zip(**members: str | bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "."), text)
    return data.getvalue()


# -- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("items.csv", ITEMS.encode("utf-8-sig")),
        ("items.csv", ITEMS.replace("\n", "\r\n").encode("utf-16")),  # Excel's "Unicode text"
        ("items.csv", ITEMS.encode("utf-16-be")),
        ("items.csv", ITEMS.encode("cp1252")),
        ("items.csv", ITEMS.replace("\n", "\r").encode()),
        ("items.csv", ("sep=;\r\n" + ITEMS.replace(",", ";")).encode()),
        ("items.csv.gz", gzip.compress(ITEMS.encode("cp1252"))),
        ("items.csv.bz2", bz2.compress(ITEMS.encode())),
        ("items.csv.xz", lzma.compress(ITEMS.encode())),
        ("items.csv.zst", zstandard.compress(ITEMS.encode())),
        ("items.csv.gz", ITEMS.encode()),  # the name lies
        ("items.zip", _zip(items__csv=ITEMS, notes__md="# no table")),
    ],
    ids="utf-8-sig utf-16 utf-16-be cp1252 cr sep gz bz2 xz zst not-gz zip".split(),
)
def test_every_encoding_and_packing_gives_the_same_products(tmp_path: Path, name: str, data: bytes) -> None:
    report = _ingest(tmp_path / "in", name, data)
    assert (report.items_new, report.rejects) == (2, 0)
    assert _titles(tmp_path / "in") == {"k1": "Café tee", "k2": "Plain tee"}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("p1,Größe M\np2,Mütze", "cp1252"),
        ("Żółta koszula\nŁadny sweter\nCzarne buty męskie", "cp1250"),
        ("Numer zamówienia;Ilość", "cp1250"),
        ("Işıklı lamba\nGüzel halı\nÇanta", "cp1254"),
        ("Rauð skyrta\nÞykk peysa\nGrár bolur\nTréhús", "cp1252"),
        ("p1,Красное платье\np2,Синяя рубашка", "cp1251"),
        ("p1,赤いドレス\np2,青いシャツ", "shift_jis"),
        ("p1,蓝色衬衫\np2,红色连衣裙", "gb18030"),
    ],
)
def test_an_encoding_that_is_not_unicode_is_told_from_the_letters(text: str, encoding: str) -> None:
    assert guessed_encoding(text.encode(encoding)) == encoding


def test_a_few_broken_lines_do_not_make_a_unicode_file_a_windows_one(tmp_path: Path) -> None:
    report = _ingest(tmp_path / "in", "items.csv", "item_id,title\nk1,Café\nk2,Größe\n".encode() + b"k3,Caf\xe9\n")
    assert (report.items_new, report.rejects) == (2, 1)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("items.csv", b"", r"items\.csv is empty"),
        ("items.csv", b"%PDF-1.7\n%\xc3", "is no text"),
        ("items.csv", bytes(range(256)) * 40, "is no text"),
        ("items.csv", b"<!DOCTYPE html><html><body>Log in</body></html>", "is a web page"),
        ("items.csv.gz", gzip.compress(ITEMS.encode())[:10], "cut off before its first row"),
        ("items.zip", b"PK\x03\x04 garbage", "cannot be read"),
        ("items.xlsx", _zip(**{"[Content_Types]__xml": "<x/>"}), "cannot be read as a workbook"),
        (
            "items.xml",
            b'<!DOCTYPE l [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><rss><item><id>&b;</id></item></rss>',
            "declares entities",
        ),
        ("items.parquet", b"PAR1 garbage", "cannot be read as Parquet"),
        ("items.json", b'{"a": [1, 2', "holds no records"),
    ],
    ids="empty pdf binary html cut-gz bad-zip bad-xlsx entities bad-parquet cut-json".split(),
)
def test_what_is_no_table_is_said_in_one_sentence(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(IngestError, match=message):
        _ingest(tmp_path / "in", name, data)


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "MAX_UNPACKED", 2**20)
    with pytest.raises(IngestError, match="damaged or hostile"):
        _ingest(tmp_path / "in", "items.csv.gz", gzip.compress(b"item_id,title\n" + b"0" * 2**23))


# -- delimited text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names", "rows", "delimiter"),
    [
        ("id;price\n1;2,5\n2;3,5\n", ["id", "price"], 2, ";"),
        ("id,title\n1,a;b;c\n2,d;e;f\n", ["id", "title"], 2, ","),
        ('id\ttitle\n1\t16" Wig\n2\t"a 12" thing\n3\tx\n', ["id", "title"], 3, "\t"),
        ("# from: shop\n# day: 1\n\nid,title,price\n1,a,2\n", ["id", "title", "price"], 1, ","),
        ("id;title\n1;a;\n2;b;\n", ["id", "title", ""], 2, ";"),
        ('"id","title"\n"1","7","a"\n"2","8","b"\n', ["", "id", "title"], 2, ","),
        ("1::Toy Story (1995)::Drama\n2::Jumanji (1995)::War\n", ["1", "2", "3"], 2, "::"),
        ("u1,2025-01-01,A\nu2,2025-01-02,B\n", ["1", "2", "3"], 2, ","),
        ("B001\tRed shirt\nB002\tBlue shirt\n", ["1", "2"], 2, "\t"),
    ],
    ids="decimal-comma signs-in-titles inches heading trailing row-names two-colons no-header titles".split(),
)
def test_a_layout_is_told_from_the_first_rows(
    tmp_path: Path, text: str, names: list[str], rows: int, delimiter: str
) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    found = layout_of(tmp_path / "x.csv")
    assert (list(found.names), len(found.rows), found.delimiter) == (names, rows, delimiter)


@pytest.mark.slow
def test_quotes_escaped_by_backslashes_and_rows_of_many_lines_are_read(tmp_path: Path) -> None:
    _ingest(tmp_path / "a", "items.csv", 'item_id,title,size\n1,"He said \\"hi\\", ok",M\n2,plain,S\n')
    assert _titles(tmp_path / "a") == {"1": 'He said "hi", ok', "2": "plain"}
    rows = "".join(f'{n},Tee {n},"<p>a\nb;c\n\nd</p>"\n' for n in range(20))
    assert _ingest(tmp_path / "b", "items.csv", "item_id,title,description\n" + rows).items_new == 20


def test_lines_that_end_in_all_three_ways_are_rows_and_a_return_in_quotes_is_none(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_bytes(b'item_id,title\r\nA,Tee\rB,Cap\nC,"Mug\rbig"\r\nD,Hat\r\n')
    ingest(tmp_path / "s.duckdb", "auto", [tmp_path / "items.csv"])
    with Store.open(tmp_path / "s.duckdb") as store:
        assert {key: item.title for key, item in store.items(["A", "B", "C", "D"]).items()} == {
            "A": "Tee",
            "B": "Cap",
            "C": "Mug big",
            "D": "Hat",
        }


def test_a_reject_shows_the_row_under_the_files_own_names(tmp_path: Path) -> None:
    _ingest(
        tmp_path / "in",
        "events.csv",
        "Kunde;ts;action;item_id\nu1;nie;click;A\nu1;2025-01-01;click;A\n",
        events_user_id="Kunde",
    )
    with duckdb.connect(str(tmp_path / "in" / "s.duckdb"), read_only=True) as con:
        (line, raw) = con.execute("SELECT line, raw FROM rejects").fetchall()[0]
    assert (line, json.loads(raw)) == (2, {"Kunde": "u1", "ts": "nie", "action": "click", "item_id": "A"})


# -- workbooks, JSON, XML --------------------------------------------------------------------------------------------


def _workbook(sheets: dict[str, list[list[Any]]]) -> bytes:
    """The least that is an Excel file: numbers as they are, texts inline."""

    def cell(value: Any) -> str:
        if isinstance(value, int | float):
            return f"<c><v>{value}</v></c>"
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>'

    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    kinds = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/"
    names = list(enumerate(sheets, start=1))
    listed = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="rId{n}"/>' for n, name in names)
    related = "".join(
        f'<Relationship Id="rId{n}" Type="{kinds}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n, _ in names
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}content-types"><Default Extension="xml" '
        'ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}relationships">'
        f'<Relationship Id="r" Type="{kinds}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{kinds}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}relationships">{related}</Relationships>',
    }
    for number, rows in enumerate(sheets.values(), start=1):
        body = "".join(f"<row>{''.join(cell(value) for value in row)}</row>" for row in rows)
        parts[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{main}"><sheetData>{body}</sheetData></worksheet>'
        )
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return data.getvalue()


@pytest.mark.slow
def test_every_sheet_of_a_workbook_is_read_also_from_inside_an_archive(tmp_path: Path) -> None:
    book = _workbook(
        {
            "Products": [["Product ID", "Product name", "Price"], [10002, "Tee", 9.5]],
            "Orders": [["Customer ID", "Product ID", "Order date", "Order ID"], [7, 10002, "2025-01-01", 1]],
            "Notes": [],
            "About": [["This is what the export of our shop looks like"], ["Ask Ann, or Bob"]],
        }
    )
    for name, data in (("shop.xlsx", book), ("shop.zip", _zip(shop__xlsx=book))):
        report = _ingest(tmp_path / name[-4:], name, data, "auto")
        assert (report.items_new, report.events_new, report.items_unlisted, report.rejects) == (1, 1, 0, 0)
        assert _titles(tmp_path / name[-4:]) == {"10002": "Tee"}


PRODUCTS = [{"item_id": "A", "title": "Tee", "price": 3.5}, {"item_id": "B", "title": "Cap", "price": None}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(PRODUCTS),
        json.dumps(PRODUCTS, indent=2),
        "[" + ",\n".join(json.dumps(product) for product in PRODUCTS) + "]",
        json.dumps({"status": "ok", "count": 2, "data": {"products": PRODUCTS}}),
        "".join(json.dumps(product) for product in PRODUCTS),
        "\n".join(json.dumps(product, indent=1) for product in PRODUCTS),
        json.dumps(
            {"hits": {"total": 2, "hits": [{"_index": "products", "_source": product} for product in PRODUCTS]}}
        ),
        json.dumps(PRODUCTS).replace("null", "NaN"),
        "\ufeff" + "\n".join(json.dumps(product).replace("null", "NaN") for product in PRODUCTS),
    ],
    ids="array pretty-array line-array wrapped glued pretty hits nan-array nan-lines".split(),
)
def test_json_of_every_shape_gives_the_same_products(tmp_path: Path, text: str) -> None:
    report = _ingest(tmp_path / "in", "items.json", text)
    assert (report.items_new, report.rejects) == (2, 0)
    assert _titles(tmp_path / "in") == {"A": "Tee", "B": "Cap"}


def test_an_array_that_breaks_off_keeps_what_came_before_and_says_so(tmp_path: Path) -> None:
    report = _ingest(tmp_path / "in", "items.json", json.dumps(PRODUCTS)[:-20])
    assert (report.items_new, report.rejects) == (1, 1)


NESTED = {
    "user": "u1",
    "at": "2026-05-14T09:00:00Z",
    "object": {"id": "A"},
    "items": [{"item_id": "B", "name": "Tee"}, {"item_id": "C"}],
}
WHO = {"events_user_id": "user", "events_ts": "at", "events_action": "=click"}


@pytest.mark.parametrize(
    ("item", "expected"),
    [("object.id", ["A"]), ("items.item_id", ["B", "C"]), ("items", ["B", "C"])],
    ids="dotted inside-array array".split(),
)
def test_a_mapping_reaches_into_objects_and_unfolds_arrays(tmp_path: Path, item: str, expected: list[str]) -> None:
    report = _ingest(tmp_path / "in", "events.jsonl", json.dumps(NESTED), **WHO, events_item_id=item)
    assert (report.events_new, report.rejects) == (len(expected), 0)
    with Store.open(tmp_path / "in" / "s.duckdb") as store:
        assert [event.item_id for event in store.history("u1")] == expected


def test_an_array_of_plain_ids_is_unfolded(tmp_path: Path) -> None:
    row = {"user": "u1", "at": "2026-05-14T09:00:00Z", "bought": ["A", "B"]}
    assert _ingest(tmp_path / "in", "events.jsonl", json.dumps(row), **WHO, events_item_id="bought").events_new == 2


@pytest.mark.parametrize("wrong", ["Name", "object.key"], ids=["case", "path"])
def test_a_mapped_name_that_no_line_of_json_has_is_an_error_that_names_the_keys(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(IngestError, match=rf"no column '{wrong}' \(it has: id, name\)"):
        _ingest(tmp_path / "in", "items.jsonl", '{"id":"A","name":"Tee"}', items_item_id="id", items_title=wrong)


@pytest.mark.slow
def test_a_name_that_only_a_late_line_of_json_has_is_found(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"item_id": f"i{n}", "pad": "x" * 1000}) for n in range(1500))
    report = _ingest(tmp_path / "in", "items.jsonl", lines + '\n{"item_id":"late","label":"Tee"}', items_title="label")
    assert report.items_new == 1501
    with Store.open(tmp_path / "in" / "s.duckdb") as store:
        assert store.items(["late"])["late"].title == "Tee"


def test_a_feed_in_another_encoding_says_so_in_its_first_line(tmp_path: Path) -> None:
    feed = '<?xml version="1.0" encoding="windows-1251"?><shop><offer id="1"><name>Платье</name><price>100</price></offer></shop>'
    _ingest(tmp_path / "in", "feed.xml", feed.encode("cp1251"), "auto")
    assert _titles(tmp_path / "in") == {"1": "Платье"}


# -- a look without writing ------------------------------------------------------------------------------------------


def test_a_preview_shows_the_first_rows_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user_id,ts,action,item_id\nu,2025-01-01,click,A\n,2025-01-01,click,A\n")
    found = preview("auto", [tmp_path / "events.csv"])
    assert dict(found.readings[0].columns)["events.user_id"] == "user_id"
    rows = dict(found.rows)["events"]
    assert (rows[0]["user_id"], rows[0]["item_id"], found.counts["rejects"]) == ("u", "A", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["events.csv"]
