"""How a column of times is read: one form for the whole column, decided from all its values, as an SQL expression.

Numbers are event numbers, seconds, milli-, micro- or nanoseconds since 1970, compact dates (20260514, 20260514112345) or a spreadsheet's
days (46156.474). Text is a date of one order (year first, day first, month first, month by name) with or without a clock, AM or PM and
an offset. Where a column cannot tell 3/4 from 4/3, nothing is guessed: its rows are rejected with the option that says it,
`events.ts:format`. All times become naive UTC. It knows columns of text, not what they are for; `store/records.py` reads a single time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from recgraph.errors import IngestError

SHAPES_READ = 5_000  # distinct shapes of a column that are looked at; a column of times has some dozen
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ZONES = {
    "z": 0,
    "utc": 0,
    "gmt": 0,
    "ut": 0,
    "est": -300,
    "edt": -240,
    "cst": -360,
    "cdt": -300,
    "mst": -420,
    "mdt": -360,
}
_ZONES |= {"pst": -480, "pdt": -420, "cet": 60, "cest": 120, "wet": 0, "west": 60, "eet": 120, "eest": 180}

_CLOCK = r"(?P<h>\d{1,2}):(?P<mi>\d\d)(?::(?P<s>\d\d)(?P<f>[.,:]\d{1,9})?)?(?: ?(?P<half>[ap])\.?m\b\.?)?"
_OFFSET = r"(?: ?(?P<sign>[+-])(?P<oh>\d\d):?(?P<om>\d\d)?)?(?: ?[\[(][^\])]*[\])])?"
_ZONE = rf"(?: ?(?P<zone>{'|'.join(sorted(_ZONES, key=len, reverse=True))})\b)?{_OFFSET}"
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*[,.]? +)?"
_MONTH = rf"(?P<mon>{'|'.join(_MONTHS)})[a-z]*\.?"
_AFTER = rf"(?:[T ,]+(?:at )?{_CLOCK})?{_ZONE}"
_TWO = r"(?P<a>\d{1,2})[/.-](?P<b>\d{1,2})[/.-](?P<y>\d{4}|\d{2})"
_DAY = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?"
# Form -> pattern of the whole value, in the part of the syntax that Python and DuckDB (RE2) share.
FORMS: dict[str, str] = {
    "year first": rf"(?P<y>\d{{4}})[-/.](?P<mo>\d{{1,2}})[-/.](?P<d>\d{{1,2}}){_AFTER}",
    "basic": rf"(?P<y>\d{{4}})(?P<mo>\d\d)(?P<d>\d\d)[T ](?P<h>\d\d):?(?P<mi>\d\d)(?::?(?P<s>\d\d)(?P<f>[.,]\d{{1,9}})?)?{_ZONE}",
    "day or month first": _TWO + _AFTER,
    "day month year": rf"{_WEEKDAY}{_DAY}[ ./-]+{_MONTH}[ .,/-]+(?P<y>\d{{4}}|\d{{2}})(?:[T ,:]+(?:at )?{_CLOCK})?{_ZONE}",
    "month day year": rf"{_WEEKDAY}{_MONTH}[ -]+{_DAY},?[ -]+(?P<y>\d{{4}}){_AFTER}",
    "year month day": rf"(?P<y>\d{{4}})[ -]{_MONTH}[ -]{_DAY}{_AFTER}",
    "year last": rf"{_WEEKDAY}{_MONTH} +{_DAY} {_CLOCK}{_ZONE} (?P<y>\d{{4}})",
}
_NUMBER = r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?"
_PLAIN = r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d:\d\d(\.\d{1,6})?( ?(Z|UTC|GMT))?)?"  # what a cast to TIMESTAMP reads as it should, and fastest
_FOUR = "regexp_matches({}, '\\d.*\\d.*\\d.*\\d')"  # four digits: meant as a time
COMPACT = (
    r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])[0-5]\d([0-5]\d(\d{3})?)?)?(\.0+)?",  # with hour and minute, or neither
    r"20\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-3])",  # hours: ten digits, as seconds since 1970 have
)
_SINCE = {  # unit -> (from, below, microseconds): nothing between 1973 and 5138 is in two of them; of equal counts the first wins
    "seconds": (1e8, 1e11, "d * 1e6"),
    "milliseconds": (1e11, 1e14, "d * 1e3"),
    "microseconds": (1e14, 1e17, "d"),
    "nanoseconds": (1e17, 9.2e18, "d / 1e3"),
    "event numbers": (0.0, 1e8, "d * 1e6"),
}


@dataclass(frozen=True)
class Shape:
    """Values of a column that are alike but for their digits: all of them as 0, how many, the least and the greatest as texts."""

    text: str
    count: int
    least: str
    greatest: str


@dataclass(frozen=True)
class Column:
    """How one text column is read: SQL expressions of its value (NULL where it cannot be read) and of the reason why not, and what a
    person should know."""

    value: str
    problem: str
    notes: tuple[str, ...] = ()


def shapes(cursor: duckdb.DuckDBPyConnection, table: str, column: str) -> list[Shape]:
    """The shapes of a column's values that are not empty, the most frequent first."""
    rows = cursor.execute(
        f"""SELECT translate(left({column}, 60), '123456789', '000000000') AS shape, count(*), min({column}), max({column})
            FROM {table} WHERE {column} <> '' GROUP BY shape ORDER BY 2 DESC, shape LIMIT {SHAPES_READ}"""  # noqa: S608 - names of our own
    ).fetchall()
    return [Shape(*row) for row in rows]


def literal(text: str) -> str:
    """A text as an SQL literal, for views, which take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def read_times(cursor: duckdb.DuckDBPyConnection, table: str, column: str, name: str, form: str = "") -> Column:
    """Decides how `column` of `table` (trimmed text, "" where empty) is read. `name` is what the user calls it, e.g. events.ts; `form` is
    the strptime format they gave for it. IngestError where that is none."""
    option = f"--map '{name}:format=%d.%m.%Y %H:%M'"
    if form and (order := re.fullmatch(r"%([dm])([/.-])%([dm])\2%[yY]", form)) and order[1] != order[3]:
        return _dates("day or month first", column, option, order[1] == "d", form)
    if form:
        return _by_format(cursor, column, name, form)
    row = cursor.execute(
        f"""SELECT count(*) FILTER (regexp_full_match({column}, '{_PLAIN}')),
                count(*) FILTER (isfinite(TRY_CAST({column} AS DOUBLE))), count(*) FROM {table} WHERE {column} <> ''"""  # noqa: S608 - names of our own
    ).fetchone()
    assert row is not None
    plain, numbers, total = (int(number) for number in row)
    # The rest alone is looked at by shape, which takes ten times as long.
    rest = f"(SELECT * FROM {table} WHERE NOT regexp_full_match({column}, '{_PLAIN}') AND TRY_CAST({column} AS DOUBLE) IS NULL)"  # noqa: S608
    kinds = (
        [(_form_of(shape.least), shape) for shape in shapes(cursor, rest, column)] if plain + numbers < total else []
    )
    counts = {"year first": plain, "number": numbers}
    for kind, shape in kinds:
        counts[kind] = counts.get(kind, 0) + shape.count
    counts.pop("", None)
    kind = max((kind for kind in counts if counts[kind]), key=lambda kind: counts[kind], default="")
    if kind == "number":
        return _numbers(cursor, table, column, name)
    if kind == "day or month first":
        return _day_or_month(cursor, table, column, name, next(shape.least for known, shape in kinds if known == kind))
    if not kind:
        unknown = f"is in no form that recgraph knows; say it: {option.replace(chr(39), chr(39) * 2)}"
        return Column(
            "NULL::TIMESTAMP",
            f"CASE WHEN {_FOUR.format(column)} THEN {{name}} || ' ''' || {column} || ''' {unknown}' END",
        )
    if kind == "year first" and plain == counts[kind]:
        return Column(
            f"TRY_CAST(rtrim({column}, ' ZUTCGM') AS TIMESTAMP)", _unlike(column, FORMS["year first"], option)
        )
    return _dates(kind, column, option)


def check_format(cursor: duckdb.DuckDBPyConnection, name: str, form: str) -> None:
    """Raises IngestError for a text that is no strptime format."""
    try:
        cursor.execute("SELECT try_strptime('', ?)", [form]).fetchone()
    except duckdb.Error as error:
        raise IngestError(
            f"{name} is '{form}', which is no time format ({str(error).splitlines()[0]}). Write it like %d.%m.%Y %H:%M."
        ) from None
    if "%" not in form:
        raise IngestError(f"{name} is '{form}', which is no time format. Write it like %d.%m.%Y %H:%M.")


def _form_of(value: str) -> str:
    if re.fullmatch(_NUMBER, value):
        return "number"
    return next((form for form, pattern in FORMS.items() if re.fullmatch(pattern, value, re.IGNORECASE)), "")


def _unlike(column: str, pattern: str, option: str) -> str:
    """The reason of a value that was not read: of another form than its column, or no time at all."""
    hint = f"is not of the form its column has; put it right, or say the column''s form: {option.replace(chr(39), chr(39) * 2)}"
    return (
        f"CASE WHEN {_FOUR.format(column)} AND NOT regexp_full_match({column}, {literal('(?i)' + _unnamed(pattern))}) "
        f"THEN {{name}} || ' ''' || {column} || ''' {hint}' END"
    )


def _unnamed(pattern: str) -> str:
    return re.sub(r"\(\?P<\w+>", "(", pattern)


def _by_format(cursor: duckdb.DuckDBPyConnection, column: str, name: str, form: str) -> Column:
    check_format(cursor, f"{name}:format", form)
    return Column(
        f"CAST(try_strptime({column}, {literal(form)}) AS TIMESTAMP)",
        f"{{name}} || ' ''' || {column} || ''' is not of the form {form.replace(chr(39), chr(39) * 2)}, which {name}:format names'",
    )


def _day_or_month(cursor: duckdb.DuckDBPyConnection, table: str, column: str, name: str, example: str) -> Column:
    """Day or month first: a number above 12 in one place decides; dots alone mean day first. Else nothing is read."""
    row = cursor.execute(
        f"""SELECT count(*) FILTER (TRY_CAST(p.a AS INTEGER) > 12), count(*) FILTER (TRY_CAST(p.b AS INTEGER) > 12), count(*) FILTER (p.dot = '.')
            FROM (SELECT regexp_extract({column}, '^(\\d{{1,2}})([/.-])(\\d{{1,2}})[/.-]\\d', ['a', 'dot', 'b']) AS p FROM {table})"""  # noqa: S608 - names of our own
    ).fetchone()
    assert row is not None
    day, month, dots = (int(number) for number in row)
    clock = re.sub(r"^[\d/.-]+", "", example)
    mark = re.sub(r"\d", "", example)[0]
    year = "%Y" if re.match(r"\d+\D\d+\D\d{4}", example) else "%y"
    # Written as the values are, so that the sentence's option can be copied.
    time = re.sub(r"\d\d?:\d\d", "%I:%M" if re.search("[apAP][mM]", clock) else "%H:%M", clock, count=1)
    time = re.sub(r"(%M):\d\d", r"\1:%S", time)
    time = re.sub(r"[apAP][mM]", "%p", time)
    one, other = (f"%{a}{mark}%{b}{mark}{year}{time}" for a, b in (("d", "m"), ("m", "d")))
    if day or month or dots:
        day_first = day > month or (day == month and dots > 0)
        return _dates("day or month first", column, f"--map '{name}:format={other if day_first else one}'", day_first)
    return Column(
        "NULL::TIMESTAMP",
        f"CASE WHEN regexp_full_match({column}, {literal('(?i)' + _unnamed(FORMS['day or month first']))}) THEN {{name}} || ' ''' || {column} || "
        f"''' may be day or month first, and nothing in the column tells; say it: --map ''{name}:format={one}'' or {other}' END",
    )


def _dates(kind: str, column: str, option: str, day_first: bool = True, form: str = "") -> Column:
    """The expression of a text form: its parts by one regular expression, put together as an ISO time, and moved to UTC."""
    pattern = FORMS[kind]
    names = re.findall(r"\(\?P<(\w+)>", pattern)
    parts = {"a": ("d" if day_first else "mo"), "b": ("mo" if day_first else "d")}
    listed = ", ".join(f"'{parts.get(name, name)}'" for name in names)

    def part(name: str, otherwise: str) -> str:
        return f"coalesce(nullif(p.{name}, ''), {otherwise})" if name in names else otherwise

    months = ", ".join(f"'{month}'" for month in _MONTHS)
    month = f"list_position([{months}], lower(left(p.mon, 3)))::VARCHAR" if "mon" in names else "p.mo"
    year = "CASE WHEN length(p.y) = 2 THEN (CASE WHEN p.y < '70' THEN '20' ELSE '19' END) || p.y ELSE p.y END"
    hour = part("h", "'0'")
    if "half" in names:
        noon = f"(TRY_CAST({hour} AS INTEGER) % 12 + CASE WHEN lower(p.half) = 'p' THEN 12 ELSE 0 END)::VARCHAR"
        hour = f"CASE WHEN p.half <> '' AND TRY_CAST({hour} AS INTEGER) BETWEEN 1 AND 12 THEN {noon} WHEN p.half = '' THEN {hour} ELSE '99' END"
    fraction = "CASE WHEN p.f <> '' THEN '.' || left(p.f[2:], 6) ELSE '' END" if "f" in names else "''"
    minute, second = part("mi", "'0'"), part("s", "'0'")
    moment = (
        f"{year} || '-' || {month} || '-' || p.d || ' ' || ({hour}) || ':' || {minute} || ':' || {second} || {fraction}"
    )
    zones = " ".join(f"WHEN '{zone}' THEN {minutes}" for zone, minutes in _ZONES.items() if minutes)
    hours = "CASE WHEN p.oh = '' THEN 0 ELSE (p.sign || '1')::INTEGER * (p.oh::INTEGER * 60 + coalesce(TRY_CAST(p.om AS INTEGER), 0)) END"
    offset = f"to_minutes(CASE lower(p.zone) {zones} ELSE 0 END + {hours})"
    # A list of one, so that the parts are found once: DuckDB evaluates an expression under CASE as often as it is written.
    parsed = f"regexp_extract({column}, {literal('(?i)^' + _unnamed(pattern) + '$')}, [{listed}])"
    value = f"list_transform([{parsed}], lambda p: TRY_CAST({moment} AS TIMESTAMP) - {offset})[1]"
    if form:
        return Column(value, f"{{name}} || ' ''' || {column} || ''' is not of the form {form}, which the option names'")
    return Column(value, _unlike(column, pattern, option))


def _numbers(cursor: duckdb.DuckDBPyConnection, table: str, column: str, name: str) -> Column:
    """Which numbers they are: compact dates, a spreadsheet's days, or time since 1970 in the unit that most of them have."""
    bands = ", ".join(f"count(*) FILTER (d >= {low} AND d < {high})" for low, high, _ in _SINCE.values())
    row = cursor.execute(
        f"""SELECT count(*), count(*) FILTER (regexp_full_match(x, '{COMPACT[0]}')), count(*) FILTER (regexp_full_match(x, '{COMPACT[1]}')),
                count(*) FILTER (d >= 20000 AND d < 80000), count(*) FILTER (d <> floor(d)), min(d), max(d), {bands}
            FROM (SELECT {column} AS x, TRY_CAST({column} AS DOUBLE) AS d FROM {table}) WHERE d IS NOT NULL"""  # noqa: S608 - names of our own
    ).fetchone()
    assert row is not None
    total, compact, hours, days, fractions, least, greatest = row[:7]
    option = f"--map '{name}:format=%Y%m%d'"
    if 2 * compact >= total or hours == total:
        return _compact(column, option, hours == total)
    if 2 * days >= total and (fractions or (least >= 30_000 and greatest < 60_000)):
        value = (
            "CASE WHEN d >= 20000 AND d < 80000 THEN TIMESTAMP '1899-12-30' + to_seconds(round(d * 86400)::BIGINT) END"
        )
        note = f"{name} read as the days of a spreadsheet ({least:.10g} is {_excel_day(float(least))})"
        return Column(_of_number(column, value), _not_like(column, "the days of a spreadsheet", option), (note,))
    count, unit = max(zip(row[7:], _SINCE, strict=True), key=lambda pair: int(pair[0]))
    if not count:
        return Column("NULL::TIMESTAMP", "NULL::VARCHAR")
    low, high, micros = _SINCE[unit]
    if unit == "nanoseconds":  # more digits than a double has
        value = f"make_timestamp(coalesce(TRY_CAST({column} AS BIGINT) // 1000, (d / 1e3)::BIGINT))"
    else:
        value = f"make_timestamp(round({micros})::BIGINT)"
    what = "event numbers" if unit == "event numbers" else f"{unit} since 1970"
    return Column(
        _of_number(column, f"CASE WHEN d >= {low} AND d < {high} THEN {value} END"), _not_like(column, what, option)
    )


def _excel_day(day: float) -> str:
    from datetime import datetime, timedelta

    return f"{datetime(1899, 12, 30) + timedelta(days=int(day)):%Y-%m-%d}"


def _of_number(column: str, value: str) -> str:
    return re.sub(r"\bd\b", f"TRY_CAST({column} AS DOUBLE)", value)


def _not_like(column: str, what: str, option: str) -> str:
    hint = f"is not like the others of its column, {what}; put it right, or say the column''s form: {option.replace(chr(39), chr(39) * 2)}"
    return f"CASE WHEN regexp_matches({column}, '\\d') THEN {{name}} || ' ''' || {column} || ''' {hint}' END"


def _compact(column: str, option: str, hours: bool) -> Column:
    lengths: Sequence[int] = (10,) if hours else (8, 12, 14, 17)
    text = (
        f"{column}[1:4] || '-' || {column}[5:6] || '-' || {column}[7:8] || ' ' || coalesce(nullif({column}[9:10], ''), '0') || ':' || "
        f"coalesce(nullif({column}[11:12], ''), '0') || ':' || coalesce(nullif({column}[13:14], ''), '0') || "
        f"CASE WHEN {column}[15:17] <> '' THEN '.' || {column}[15:17] ELSE '' END"
    )
    text = text.replace(column + "[", f"split_part({column}, '.', 1)[")
    known = f"regexp_full_match({column}, '\\d+(\\.0+)?') AND length(split_part({column}, '.', 1)) IN ({', '.join(map(str, lengths))})"
    return Column(
        f"CASE WHEN {known} THEN TRY_CAST({text} AS TIMESTAMP) END", _not_like(column, "dates such as 20260514", option)
    )
