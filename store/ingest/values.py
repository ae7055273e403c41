"""What cells mean: empty ones, ids, prices, stock words and the names of events, as SQL macros and as decisions on whole columns.

A column is looked at once, whole, and then read in one way; what stays uncertain is a counted note or a reject with the option that
settles it, never a silent factor of a thousand. Times are read in `store/ingest/times.py`; what is done with the values, in `staging.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import duckdb

from recgraph.errors import IngestError
from recgraph.store.ingest.times import Column, Shape, check_format, literal, shapes

PLACEHOLDERS = (
    *(
        "n/a",
        "#n/a",
        "na",
        "n.a.",
        "<na>",
        "null",
        "(null)",
        "#null!",
        "none",
        "(none)",
        "nan",
        "nil",
        "-",
        "--",
        "undefined",
    ),
    *("(not set)", "(not provided)", "(blank)", "\\n", '""', "''"),
)

# What shops call all those who are not logged in: thousands of people, not a shopper.
NOBODY = tuple("guest anonymous anonym anon unknown unregistered gast unbekannt invité anonyme invitado anónimo -1".split())


def _among(expression: str, words: Iterable[str]) -> str:
    """SQL: whether it is one of the words. DuckDB makes a join of a long IN, and a join loses the order of the rows."""
    return f"list_contains([{', '.join(map(literal, words))}], {expression})"


# Macros of every ingest; readers use `blank` and `moment` as well. `plain` is a cell without its blanks, `known` what is left of one
# that may only say that nothing is known: ""; the length comes first because descriptions are long. `blank` looks first whether there is
# anything to trim: trimming characters of more than one byte costs three times as much.
MACROS = rf"""
    CREATE TEMP MACRO blank(x) AS coalesce(CASE WHEN regexp_full_match(x, '[!-~]([ -~]*[!-~])?') THEN x
        ELSE trim(x, E' \t\r\n' || chr(0) || chr(160) || chr(65279)) END, '');
    CREATE TEMP MACRO known(x) AS CASE WHEN length(x) <= 14 AND {_among("lower(x)", PLACEHOLDERS)} THEN '' ELSE x END;
    CREATE TEMP MACRO plain(x) AS known(blank(x));
    CREATE TEMP MACRO unescaped(x) AS CASE WHEN regexp_matches(x, '&(#\d+|#[xX][0-9a-fA-F]+|\w+);') THEN html_unescape(x) ELSE x END;
    CREATE TEMP MACRO one_line(x) AS CASE WHEN regexp_matches(x, '\s\s|[\t\r\n\x00]') THEN regexp_replace(x, '[\s\x00]+', ' ', 'g') ELSE x END;
    CREATE TEMP MACRO nobody(x) AS x = '' OR length(x) <= 14 AND {_among("lower(x)", NOBODY)};
    CREATE TEMP MACRO pieces(x) AS TRY_CAST(regexp_replace(translate(x, ',−', '.-'), '^\((.*)\)$', '-\1') AS DOUBLE);
    CREATE TEMP MACRO filled(m) AS map_from_entries(list_filter(map_entries(m), lambda e: plain(e.value) <> ''));
    CREATE TEMP MACRO moment(x) AS CASE WHEN regexp_full_match(x, '\d+(\.\d+)?') THEN make_timestamp((TRY_CAST(x AS DOUBLE) * 1e6)::BIGINT)
        ELSE TRY_CAST(rtrim(x, ' ZUTCGM') AS TIMESTAMP) END;
    CREATE TEMP MACRO position_problem(x) AS CASE WHEN x <> '' AND NOT coalesce(TRY_CAST(x AS DOUBLE) = TRY_CAST(x AS INTEGER)
        AND TRY_CAST(x AS INTEGER) > 0, FALSE) THEN 'position ''' || x || ''' is not a whole number from 1' END;
"""

# -- options ------------------------------------------------------------------------------------------------------------------------

_OPTIONS = ("events.ts:format", "exposures.ts:format", "items.first_seen:format", "items.price:decimal")
ACTIONS = ("search", "click", "cart", "purchase", "return", "ignore")


def check_option(cursor: duckdb.DuckDBPyConnection, name: str, value: str) -> None:
    """Raises IngestError for an entry of the mapping with a colon that means nothing: it says how a column's values are to be read."""
    column, _, option = name.partition(":")
    if column == "events.action" and option:
        if value.lower() not in ACTIONS:
            raise IngestError(f"{name} is '{value}'; an event's name can mean one of {', '.join(ACTIONS)}.")
    elif name not in _OPTIONS:
        known = ", ".join((*_OPTIONS, "events.action:NAME"))
        raise IngestError(f"The mapping names '{name}', which is no option. Known: {known}.")
    elif option == "format":
        check_format(cursor, name, value)
    elif value not in (".", ","):
        raise IngestError(f"{name} is '{value}'; the decimal mark is . or ,")


# -- ids ------------------------------------------------------------------------------------------------------------------------------


def read_ids(cursor: duckdb.DuckDBPyConnection, table: str, column: str) -> Column:
    """An id as it stands; in a column of numbers alone some of which end in .0, which a spreadsheet or pandas put there, without that."""
    row = cursor.execute(
        f"""SELECT count(*) FILTER (ends_with({column}, '.0')),
                count(*) FILTER (contains({column}, 'E+') AND TRY_CAST({column} AS DOUBLE) IS NOT NULL),
                min({column}) FILTER (contains({column}, 'E+')) FROM {table}"""  # noqa: S608 - names of our own
    ).fetchone()
    assert row is not None
    floats, powers, power = row
    notes = (
        (f"{powers:,} ids of {column.removesuffix('_text')} are such as {power}: a spreadsheet cut their digits off",)
        if powers
        else ()
    )
    others = f"SELECT 1 FROM {table} WHERE {column} <> '' AND NOT regexp_full_match({column}, '\\d+(\\.\\d+E\\+\\d+|\\.0)?') LIMIT 1"  # noqa: S608 - names of our own
    if floats and cursor.execute(others).fetchone() is None:
        return Column(f"CASE WHEN ends_with({column}, '.0') THEN {column}[:-3] ELSE {column} END", "NULL", notes)
    return Column(column, "NULL", notes)


# -- prices -----------------------------------------------------------------------------------------------------------------------------

_NUMBER = r"\d+(?:\.\d+)?[eE][+-]?\d+|\d+(?:[.,' ]\d+)*|[.,]\d+"
_GROUPED = {  # patterns of a number whose marks leave no doubt, and what makes it one that SQL casts
    r"\d+(\.\d+)?[eE][+-]?\d+": "c",
    r"\d+": "c",
    r"\d{1,3}([ ']\d{3})+([.,]\d+)?": "replace(translate(c, ' ''', ''), ',', '.')",
    r"\d{1,3}(\.\d{3})+,\d+|\d{1,3}(\.\d{3}){2,}": "replace(replace(c, '.', ''), ',', '.')",
    r"\d{1,3}(,\d{3})+\.\d+|\d{1,2}(,\d\d)+,\d{3}(\.\d+)?|\d{1,3}(,\d{3}){2,}": "replace(c, ',', '')",
}
_UNSURE = r"[1-9]\d{0,2}[.,]\d{3}"  # 1.299: a thousand or a decimal mark
_DECIMAL = r"\d*[.,]\d+"
_SPACES = "\u00a0\u2007\u2008\u2009\u200a\u202f\u3000\t"
_QUOTES = "\u2019\u2018\u00b4`"
_RANGE = r"^[^\d]*(-|–|—|to|bis|~)[^\d]{0,6}\d[\d.,' ]*[^\d]*$"


def read_prices(
    cursor: duckdb.DuckDBPyConnection, table: str, column: str, decimal: str = "", typed: bool = False
) -> Column:
    """Decides how a column of prices is read. `decimal` is the mark the user named; `typed` says that the file keeps numbers as numbers, so
    that a point is a decimal one. Where no value tells 1.000 from a thousand, all of them are thousands, and a note says so."""
    row = cursor.execute(
        f"""SELECT count(*), count(*) FILTER (regexp_full_match({column}, '\\d+(\\.\\d{{1,2}})?')),
                count(*) FILTER (regexp_full_match({column}, '\\d+(\\.\\d+)?([eE][+-]?\\d+)?')) FROM {table} WHERE {column} <> ''"""  # noqa: S608 - names of our own
    ).fetchone()
    assert row is not None
    total, simple, floats = (int(number) for number in row)
    if not total or simple == total or ((typed or decimal == ".") and floats == total):
        return Column(f"TRY_CAST({column} AS DOUBLE)", "NULL::VARCHAR")
    marks, unsure = _marks(shapes(cursor, table, column))
    mark = decimal or (marks.pop() if len(marks) == 1 else "" if marks else "." if typed else "none")
    option = "--map items.price:decimal=. or ,"
    as_read = {"": "NULL", "none": "regexp_replace(c, '[.,]', '')"}.get(
        mark, f"CASE WHEN contains(c, '{mark}') THEN replace(c, ',', '.') ELSE regexp_replace(c, '[.,]', '') END"
    )
    notes: tuple[str, ...] = ()
    if unsure and mark == "none" and not decimal:
        notes = (
            f"{sum(one.count for one in unsure):,} prices such as {unsure[0].least} read as thousands; if they are not, say {option}",
        )
    elif (doubtful := [one for one in unsure if mark in one.text]) and mark and not decimal:
        notes = (
            f"{sum(one.count for one in doubtful):,} prices such as {doubtful[0].least} read with a decimal '{mark}', as the column's others have it",
        )
    cases = " ".join(f"WHEN regexp_full_match(c, {literal(pattern)}) THEN {sql}" for pattern, sql in _GROUPED.items())
    number = (
        f"CASE {cases} WHEN regexp_full_match(c, {literal(_UNSURE)}) THEN {as_read} "
        f"WHEN regexp_full_match(c, {literal(_DECIMAL)}) THEN replace(c, ',', '.') END"
    )
    signs = f"{literal(_SPACES + _QUOTES)}, {literal(' ' * len(_SPACES) + chr(39) * len(_QUOTES))}"
    spelled = f"translate(regexp_replace({column}, '([.,])[-–—]+', '\\100'), {signs})"
    core = f"regexp_extract({spelled}, {literal(_NUMBER)})"
    number = number.replace("(c,", f"({core},").replace("THEN c ", f"THEN {core} ")
    lowest = f"TRY_CAST({number} AS DOUBLE)"
    head = f"regexp_extract({spelled}, '^[^\\d]*')"
    rest = f"{spelled}[strpos({spelled}, {core}) + length({core}):]"
    before = f"regexp_matches({head}, '[-−–]\\s*\\p{{Sc}}?\\s*[.,]?$|^\\s*[-−]')"
    after = f"regexp_matches({rest}, '^\\s*[-−]\\s*$')"
    minus = f"({before} OR {after} OR (contains({head}, '(') AND starts_with({rest}, ')')))"
    several = f"(regexp_matches({rest}, '\\d') AND NOT regexp_matches({rest}, {literal(_RANGE)}))"
    share = f"regexp_matches({rest}, '^\\s*%')"
    unsure_here = f"regexp_full_match({core}, {literal(_UNSURE)})"
    name = f"'price ''' || {column} || ''' '"
    problem = f"""CASE WHEN {minus} THEN {name} || 'is negative; the item was kept without it'
        WHEN {share} THEN {name} || 'is a share, not a price; the item was kept without it'
        WHEN {several} THEN {name} || 'holds several numbers; the item was kept without it'
        WHEN {unsure_here} THEN {name} || 'may be a thousand times more or less: its column has both marks; '
            || 'the item was kept without it (say {option})'
        ELSE {name} || 'is not a number; the item was kept without it' END"""
    return Column(
        f"CASE WHEN NOT {minus} AND NOT {several} AND NOT {share} AND length({column}) <= 60 THEN {lowest} END", problem, notes
    )


def _marks(found: list[Shape]) -> tuple[set[str], list[Shape]]:
    """The decimal marks that values without doubt show, and the shapes that leave it open."""
    marks, unsure = set[str](), []
    for shape in found:
        text = re.sub(r"([.,])[-–—]+", r"\g<1>00", shape.text).translate(
            str.maketrans(_SPACES + _QUOTES, " " * len(_SPACES) + "'" * len(_QUOTES))
        )
        least = re.search(_NUMBER, re.sub(r"([.,])[-–—]+", r"\g<1>00", shape.least))
        number = re.search(_NUMBER, text)
        if number is None or re.fullmatch(r"\d+(\.\d+)?[eE][+-]?\d+|\d+", number[0]):
            continue
        core = number[0]
        last = max(core.rfind("."), core.rfind(","))
        if last < 0:
            continue
        mark, other = core[last], "." if core[last] == "," else ","
        if core.count(mark) > 1 and other not in core:
            marks.add(other)
        elif re.fullmatch(r"\d{1,3}[.,]\d{3}", core) and not (least and least[0].startswith("0")):
            unsure.append(shape)
        elif core.count(mark) == 1:
            marks.add(mark)
    return marks, unsure


# -- stock ------------------------------------------------------------------------------------------------------------------------------

# Google, Schema.org, Shopify and WooCommerce, without blanks, _ and -. What can be ordered is on sale, also where it comes later.
_ON_SALE = """true t yes y ja oui si 1 instock instockonline available availablenow onlineonly instoreonly limitedavailability limitedstock lowstock
    backorder onbackorder availableforbackorder backordered preorder presale madetoorder availablefororder active enabled published onsale
    auflager lieferbar verfügbar sofortlieferbar enstock disponible continue vorrätig dostępny dostępna dostępne
    wmagazynie stokta stoktavar mevcut var disponibile
    disponível opvoorraad voorradig 在庫あり 在庫有り あり 有り 販売中""".split()
_OFF_SALE = """false f no n nein non 0 outofstock oos soldout unavailable notavailable notinstock discontinued reserved
    inactive disabled draft archived deny hidden deleted ended temporarilyoutofstock ausverkauft nichtlieferbar
    nichtverfügbar nichtauflager vergriffen nichtvorrätig épuisé épuisée rupture enrupture rupturedestock
    enrupturedestock
    indisponible agotado agotada sinstock nodisponible niedostępny niedostępna niedostępne brak brakwmagazynie
    tükendi stoktayok yok
    esaurito nondisponibile esgotado indisponível uitverkocht nietopvoorraad 在庫なし 在庫無し 在庫切れ なし 無し 売り切れ 品切れ""".split()


def stock(column: str) -> str:
    """SQL: TRUE or FALSE for a stock word or a number of pieces, NULL for "" and for what is unknown."""
    word = f"regexp_replace(regexp_replace(lower({column}), '^https?://(www\\.)?schema\\.org/|^schema:', ''), '[\\s_.-]+', '', 'g')"
    number = (
        f"regexp_replace(lower({column}), '\\s*(\\+|left|in stock|available|pcs|pieces|items|st(ü|u)ck|auf lager)?$', '')"
    )
    return f"""CASE WHEN {column} = '' THEN NULL WHEN TRY_CAST({number} AS DOUBLE) IS NOT NULL THEN TRY_CAST({number} AS DOUBLE) > 0
        WHEN {_among(word, _ON_SALE)} THEN TRUE WHEN {_among(word, _OFF_SALE)} THEN FALSE END"""


# -- names of events ------------------------------------------------------------------------------------------------------------------

# Without case, blanks, _ and -; GA4, Segment, REES46, RetailRocket, Taobao, Shopify, OpenSearch UBI, Personalize and others.
_NAMES: Mapping[str, str] = {
    "click": """click clicks clicked view views viewed pv itemview itemviewed viewitem viewcontent viewproduct productview productviewed
        productclick productclicked productdetail productdetails productdetailview itemclick itemclicked clickitem clickproduct selectitem
        selectcontent selectproduct itemdetail itempage detail details detailview detailpage viewdetail viewdetails quickview pdp pdpview
        viewdetailpage detailpageview productpageview fav favorite favourite like liked wishlist addtowishlist productaddedtowishlist
        watch watched play rating rate open opened read""",
    "cart": """cart carted basket addtocart addedtocart addcart cartadd cartadded addtobasket addedtobasket addtobag productadded
        productaddedtocart itemaddedtocart additemtocart begincheckout checkout checkoutstarted initiatecheckout startcheckout""",
    "purchase": """purchase purchases purchased buy bought order ordered orders ordercompleted orderplaced ordercreated completeorder placeorder
        orderpaid checkoutcomplete checkoutcompleted checkoutcompletion completecheckout completepurchase completedpurchase transaction
        transactions sale sales sold paid conversion ecommercepurchase inapppurchase productpurchased""",
    "search": """search searches searched searchquery query viewsearchresults sitesearch searchsubmitted productssearched productsearched
        searchresults searchsubmit onsitesearch viewsearchresult""",
    "return": "return returned returns refund refunded refunds orderrefunded orderreturned productreturned itemreturned chargeback",
    "shown": """impression impressions viewitemlist productlistviewed productimpression productimpressions viewimpression itemlistviewed viewlist
        exposure exposures shown""",
}
_REASONS: Mapping[str, str] = {
    "takes something out of a cart": """removefromcart removedfromcart cartremove productremoved productremovedfromcart
        removecart removefrombasket unlike unfavorite""",
    "is the view of a page, not of a product": """pageview pageviewed screenview page screen homepage home firstvisit
        sessionstart session userengagement scroll login""",
}
_KNOWN = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_KNOWN_REASONS = {name: reason for reason, names in _REASONS.items() for name in names.split()}


@dataclass(frozen=True)
class Actions:
    """How a column of event names is read: SQL of the action ("return", "shown" and "ignore" are none that is kept) and of the reason."""

    value: str
    problem: str
    ignored: tuple[str, ...] = field(default=())


def read_actions(cursor: duckdb.DuckDBPyConnection, table: str, column: str, mapping: Mapping[str, str]) -> Actions:
    """What each name of a column means; `mapping` has the user's own words for it ("events.action:NAME" -> action)."""
    own = {
        _key(name.partition(":")[2]): value.lower()
        for name, value in mapping.items()
        if name.startswith("events.action:")
    }
    rows = cursor.execute(
        f"SELECT {column}, count(*) FROM {table} WHERE {column} <> '' GROUP BY 1 ORDER BY 2 DESC LIMIT 2000"  # noqa: S608
    ).fetchall()
    kinds: dict[str, list[str]] = {}
    reasons: dict[str, list[str]] = {}
    for name, _ in rows:
        key = _key(name)
        kind = own.get(key) or _KNOWN.get(key)
        if kind:
            kinds.setdefault(kind, []).append(name)
        elif key in _KNOWN_REASONS:
            reasons.setdefault(_KNOWN_REASONS[key], []).append(name)
    value = " ".join(f"WHEN {_among(column, names)} THEN '{kind}'" for kind, names in kinds.items())
    quoted = f"'action ''' || {column} || ''' "
    why = " ".join(f"WHEN {_among(column, names)} THEN {quoted}{reason}'" for reason, names in reasons.items())
    other = f"{quoted}is none of search, click, cart, purchase'"
    ignored = tuple(
        f"{count:,} events of action '{name}' left out, as the mapping says"
        for name, count in rows
        if own.get(_key(name)) == "ignore"
    )
    return Actions(
        f"CASE {value} ELSE '' END" if value else "''",
        f"CASE WHEN {column} = '' THEN 'action is missing' {why} ELSE {other} END",
        ignored,
    )


def _key(name: str) -> str:
    return re.sub(r"[\s_\-./:]+", "", name.casefold())
