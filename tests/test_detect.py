"""Files of unknown make: what they are and what their columns mean is told from names and values, what is uncertain
is said."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner, Result

from recgraph.cli import main
from recgraph.errors import IngestError
from recgraph.store.db import Store
from recgraph.store.ingest.load import IngestReport, ingest


def _read(folder: Path, mapping: dict[str, str] | None = None, form: str = "auto", **files: str) -> IngestReport:
    """Files by name (two underscores are a dot) into a store in the folder."""
    (folder / "in").mkdir()
    for name, text in files.items():
        (folder / "in" / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return ingest(folder / "s.duckdb", form, [folder / "in"], mapping)


def _columns(report: IngestReport) -> dict[str, str]:
    return {ours: theirs for reading in report.readings for ours, theirs in reading.columns}


def _attributes(folder: Path) -> set[str]:
    with duckdb.connect(str(folder / "s.duckdb"), read_only=True) as con:
        return {name for (name,) in con.execute("SELECT DISTINCT unnest(map_keys(attributes)) FROM items").fetchall()}


EVENTS = (
    "event_time,event_type,product_id,user_id\n2019-10-01 00:00:00 UTC,view,p1,u1\n2019-10-01 00:02:00 UTC,cart,p2,u1\n"
)
ITEMS = "id\ttitle\tprice\tavailability\tcolor\titem_group_id\nG1\tRunning shoe blue\t89.90 EUR\tin stock\tBlue\tG\n"
ORDERS = (
    "InvoiceNo,StockCode,Description,InvoiceDate,CustomerID,Email\n1,A,White mug,2010-12-01 09:00,c1,ann@example.com\n"
)


@pytest.mark.slow
def test_events_and_products_are_told_from_common_names(tmp_path: Path) -> None:
    report = _read(tmp_path, log__csv=EVENTS, feed__tsv=ITEMS)
    assert _columns(report) == {
        **{
            "events.user_id": "user_id",
            "events.item_id": "product_id",
            "events.ts": "event_time",
            "events.action": "event_type",
        },
        **{"items.item_id": "id", "items.title": "title", "items.color": "color", "items.price": "price"},
        **{"items.parent_id": "item_group_id", "items.in_stock": "availability"},
    }
    assert (report.users, report.events_new, report.items_new) == (1, 2, 3)


def test_orders_fill_events_and_products_and_nothing_of_the_customer_becomes_an_attribute(tmp_path: Path) -> None:
    report = _read(tmp_path, sales__csv=ORDERS)
    assert (report.events_new, report.items_new, report.items_unlisted) == (1, 1, 0)
    with Store.open(tmp_path / "s.duckdb") as store:
        item = store.items(["A"])["A"]
        assert (item.title, item.attributes, store.history("c1")[0].action) == ("White mug", {}, "purchase")


@pytest.mark.parametrize(
    ("name", "mapping"),
    [
        ("items__csv", {"items.item_id": "StockCode", "items.title": "Description"}),
        (
            "events__csv",
            {
                "events.user_id": "CustomerID",
                "events.item_id": "StockCode",
                "events.ts": "InvoiceDate",
                "events.action": "=purchase",
            },
        ),
    ],
    ids=["as products", "as events"],
)
def test_a_combined_file_of_the_format_tables_keeps_customers_out_of_the_products(
    tmp_path: Path, name: str, mapping: dict[str, str]
) -> None:
    report = _read(tmp_path, {"items.title": "Description", **mapping}, "tables", **{name: ORDERS})
    assert report.items_new == 1
    assert _attributes(tmp_path) == set()
    with Store.open(tmp_path / "s.duckdb") as store:
        assert store.items(["A"])["A"].title == "White mug"


def test_personal_columns_of_a_product_file_are_left_out_and_others_become_attributes(tmp_path: Path) -> None:
    _read(tmp_path, products__csv="sku,name,season,supplier_email,contact phone,Gender\nA,Tee,summer,a@b.c,123,women\n")
    assert _attributes(tmp_path) == {"season", "Gender"}


@pytest.mark.parametrize(
    ("name", "text", "action", "note"),
    [
        (
            "orders__csv",
            "order_id,customer_id,product_id,created_at\n1,u,A,2025-01-01\n",
            "purchase",
            "taken for a purchase",
        ),
        ("cart_lines__csv", "customer_id,product_id,created_at\nu,A,2025-01-01\n", "cart", "taken for a cart"),
        ("log__csv", "visitor,sku,timestamp\nu,A,1735689600\n", "click", "taken for a click"),
        (
            "reviews__csv",
            "reviewer_id,asin,rating,date\nu,A,5,2025-01-01\n",
            "purchase",
            "rating is taken for a purchase",
        ),
    ],
)
def test_what_was_done_is_told_from_the_file_where_no_column_says_it(
    tmp_path: Path, name: str, text: str, action: str, note: str
) -> None:
    report = _read(tmp_path, **{name: text})
    assert any(note in found for found in report.readings[0].notes)
    with Store.open(tmp_path / "s.duckdb") as store:
        assert store.history("u")[0].action == action


def test_a_german_shop_and_a_date_beside_a_time_are_understood(tmp_path: Path) -> None:
    text = "Kundennr;Datum;Uhrzeit;Artikelnummer;Artikelbezeichnung;Menge;Einzelpreis\n7;2026-05-14;10:15;A-1;Größe M Hemd;1;12,90\n"
    report = _read(tmp_path, Bestellungen__csv=text)
    assert (report.events_new, report.rejects) == (1, 0)
    with Store.open(tmp_path / "s.duckdb") as store:
        assert store.history("7")[0].ts == datetime(2026, 5, 14, 10, 15)
        assert (store.items(["A-1"])["A-1"].title, store.items(["A-1"])["A-1"].price) == ("Größe M Hemd", 12.9)


def test_nested_json_is_told_by_the_ends_of_its_names(tmp_path: Path) -> None:
    row = {"user": {"id": "u"}, "event": "view", "product": {"id": "A", "name": "Tee"}, "time": 1735689600}
    report = _read(tmp_path, log__json=json.dumps(row, indent=1))
    assert _columns(report)["events.item_id"] == "product.id"
    with Store.open(tmp_path / "s.duckdb") as store:
        assert (store.history("u")[0].action, store.items(["A"])["A"].title) == ("click", "Tee")


def test_variants_are_products_with_a_parent_and_positions_are_purchases(tmp_path: Path) -> None:
    catalog = [
        {
            "id": "p1",
            "name": "Tee",
            "variants": [{"sku": "A", "size": "M", "price": 3}, {"sku": "B", "size": "L", "price": 4}],
        }
    ]
    order = {
        "orderNumber": "1",
        "customer": {"customerNumber": "c1", "email": "x@y"},
        "orderedAt": "2025-01-01T10:00:00Z",
    }
    order["positions"] = [
        {"articleNumber": "A", "name": "Tee", "quantity": 2},
        {"articleNumber": "C", "name": "Cap", "quantity": 1},
    ]
    report = _read(tmp_path, catalog__json=json.dumps(catalog), orders__json=json.dumps([order]))
    assert (report.items_new, report.events_new, report.rejects) == (3, 2, 0)
    with Store.open(tmp_path / "s.duckdb") as store:
        items = store.items(["A", "B", "C"])
        assert [(item.title, item.parent_id, item.size) for item in items.values()] == [
            ("Tee", "p1", "M"),
            ("Tee", "p1", "L"),
            ("Cap", "", ""),
        ]
        assert [event.item_id for event in store.history("c1")] == ["A", "C"]


def test_lines_of_orders_without_a_customer_are_no_products(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"item_id is 'product_id'.*--map events\.user_id=NAME"):
        _read(
            tmp_path,
            lines__csv="order_id,product_id,seller_id,shipping_limit_date,price\no1,p1,s1,2017-09-19 09:45:35,58.90\n",
        )


def test_searches_and_what_they_showed_are_told_from_their_columns(tmp_path: Path) -> None:
    report = _read(
        tmp_path,
        searches__csv="session_id,search_term,timestamp\ns1,red shoes,2025-01-01T10:00:00Z\n",
        shown__csv="search_term,sku,rank,timestamp\nred shoes,A,1,2025-01-01T10:00:00Z\n",
    )
    assert (report.events_new, report.exposures_new) == (1, 1)


@pytest.mark.slow
def test_sequences_take_any_two_columns_as_items_and_titles(tmp_path: Path) -> None:
    for number, titles in enumerate(
        ['B001\tRed shirt, 16"\nB002\tBlue shirt\n', 'Artikel,Bezeichnung\nB001,"Red shirt, 16"""\nB002,Blue shirt\n']
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        report = _read(
            folder,
            user_sequence__txt="ann B001 B002\n",
            **{"items__tsv" if "\t" in titles else "items__csv": titles},
            form="sequences",
        )
        assert (report.events_new, report.items_new, report.rejects) == (2, 2, 0)
        with Store.open(folder / "s.duckdb") as store:
            assert store.items(["B001"])["B001"].title == 'Red shirt, 16"'


def test_formats_of_their_own_are_recognised_and_prose_is_left(tmp_path: Path) -> None:
    report = _read(
        tmp_path,
        user_sequence__txt="ann B001 B002\nbob B002 B001 B003\n",
        titles__tsv="B001\tRed shirt\nB002\tBlue shirt\nB003\tHat\n",
        about__txt="These are, as said,\nuser sequences, of a shop.\nNothing, else.",
    )
    assert {reading.source.filename: reading.name for reading in report.readings} == {
        **{"user_sequence.txt": "sequences: events", "titles.tsv": "titles", "about.txt": "not read"},
    }
    assert (report.events_new, report.items_unlisted) == (5, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Kunde;Wann;Was\n1;2025-01-01;x\n",
            r"user_id is 'Kunde'.*it has: Kunde, Wann, Was.*--map events\.item_id=NAME",
        ),
        (
            "u1,2025-01-01 10:00,A\nu2,2025-01-02 10:00,B\n",
            r"no header; by number: 1 \(e\.g\. 'u1'\), 2 .*--map events\.user_id=NAME",
        ),
    ],
)
def test_what_cannot_be_told_lists_the_columns_and_the_line_to_write(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(IngestError, match=message):
        _read(tmp_path, log__csv=text)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_mapping_names_columns_of_a_file_without_header_and_corrects_a_guess(tmp_path: Path) -> None:
    mapping = {"events.user_id": "1", "events.ts": "2", "events.item_id": "3", "events.action": "=cart"}
    assert _read(tmp_path, mapping, log__csv="u1,2025-01-01 10:00,A\nu2,2025-01-02 10:00,B\n").events_new == 2
    (tmp_path / "b").mkdir()
    report = _read(tmp_path / "b", {"items.item_id": "sku"}, products__csv="id,sku,name\n1,A,Tee\n")
    assert _columns(report)["items.item_id"] == "sku"


def test_a_mapped_name_that_no_file_has_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        IngestError,
        match=r"--map events\.user_id=Kunde: no file has a column 'Kunde' \(log\.csv: event_time, event_type",
    ):
        _read(tmp_path, {"events.user_id": "Kunde"}, log__csv=EVENTS)


# -- the command -----------------------------------------------------------------------------------------------------


def _recgraph(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, [*words])


@pytest.mark.slow
def test_the_command_takes_paths_alone_the_old_spelling_and_a_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events.csv").write_text(EVENTS)
    dry = _recgraph("ingest", "events.csv", "--dry-run", "--store", "a.duckdb")
    assert dry.exit_code == 0, dry.output
    assert "events.user_id ← user_id" in dry.stdout
    assert "action=click" in dry.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.csv"]
    auto = _recgraph("ingest", "events.csv", "--store", "a.duckdb")
    assert (auto.exit_code, (tmp_path / "a.duckdb").exists()) == (0, True), auto.output
    mapped = [
        "--map",
        "events.ts=event_time",
        "--map",
        "events.action=event_type",
        "--map",
        "events.item_id=product_id",
    ]
    old = _recgraph("ingest", "tables", "events.csv", "--store", "b.duckdb", *mapped)
    assert old.exit_code == 0, old.output
    assert "format tables" in old.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("items", "orders"),
    [
        (
            "Référence;Désignation;Prix TTC;Disponibilité\nR1;Lampe;1 299,00 €;en stock\nR2;Tapis;49,90 €;rupture de "
            "stock",
            "N° commande;Date commande;N° client;Référence;Quantité\nC1;2026-05-14 10:00;77;R1;1",
        ),
        (
            "Kod produktu;Nazwa;Producent;Cena;Dostępność\nR1;Świeca;Łąka;1 299,00 zł;dostępny\nR2;Róża;;49,90 "
            "zł;niedostępny",
            "Numer zamówienia;Data zamówienia;Klient;Kod produktu;Ilość\n1;2026-05-14 10:00;77;R1;1",
        ),
        (
            "Ürün Kodu;Ürün Adı;Marka;Fiyat;Stok Durumu\nR1;Işıklı lamba;İpek;1.299,00 TL;var\nR2;Halı;;49,90 TL;yok",
            "Sipariş No;Sipariş Tarihi;Müşteri No;Ürün Kodu;Adet\n1;2026-05-14 10:00;77;R1;1",
        ),
        (
            '商品コード,商品名,カテゴリ,価格,在庫\nR1,赤いTシャツ,服,"￥1,299",あり\nR2,青い帽子,服,￥50,なし',
            "注文番号,注文日時,顧客ID,商品コード,数量\n1,2026-05-14 10:00,77,R1,1",
        ),
    ],
    ids=["French", "Polish", "Turkish", "Japanese"],
)
def test_shops_in_other_languages_are_understood_and_what_they_sold_out_is_not_offered(
    tmp_path: Path, items: str, orders: str
) -> None:
    report = _read(tmp_path, a__csv=items, b__csv=orders)
    assert (report.events_new, report.rejects) == (1, 0)
    with Store.open(tmp_path / "s.duckdb") as store:
        assert [(event.action, event.item_id) for event in store.history("77")] == [("purchase", "R1")]
        assert store.items(["R1"])["R1"].price == 1299.0
        assert store.items(["R1"])["R1"].title
        catalogue = store.catalogue()
        offered = dict(zip(catalogue.item_ids, catalogue.offered, strict=True))
        assert {key: bool(flag) for key, flag in offered.items()} == {"R1": True, "R2": False}
    assert _attributes(tmp_path) == set()


def test_two_columns_of_one_name_are_told(tmp_path: Path) -> None:
    report = _read(tmp_path, items__csv="item_id,title,title\nA,Tee,Shirt\nB,Cap,Hat\n")
    assert report.readings[0].notes == ("several columns are called title: the first is read",)


def test_files_put_one_after_the_other_repeat_their_header_and_name_no_product(tmp_path: Path) -> None:
    report = _read(
        tmp_path, items__csv="\ufeffitem_id,title\r\nA,Tee\r\n\ufeffitem_id,title\r\nB,Cap\r\n\ufeffC,Mug\r\n"
    )
    assert (report.items_new, report.rejects) == (3, 0)
    with Store.open(tmp_path / "s.duckdb") as store:
        assert sorted(store.items(["A", "B", "C", "item_id"])) == ["A", "B", "C"]


def test_an_encoding_that_nobody_knows_is_refused_by_name_or_guessed(tmp_path: Path) -> None:
    """A fuzzer's `--encoding --store` ended in a LookupError; rot13 is known, but no encoding of text."""
    (tmp_path / "items.csv").write_text("item_id,title\nA,Shirt\n", encoding="utf-8")
    for name in ("--store", "rot13", "a\0b"):
        with pytest.raises(IngestError, match="is no encoding"):
            ingest(tmp_path / "shop.duckdb", "auto", [tmp_path / "items.csv"], encoding=name)
