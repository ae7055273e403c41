"""What products are like, read in bulk for tools/wish: columns of attributes as codes, prices, texts, the words of titles.

Rows are in catalogue order (item_id). DuckDB does the coding, so that 2.4 million products cost no loop in Python. What a value means
is unknown here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from recgraph.store.db import Store

BASE = ("category", "brand", "color", "size")  # columns of `items`; all other attributes come from the MAP
_SAMPLE = 200_000  # products whose titles tell which words this shop uses
_CHUNK = 200_000  # rows read as one text
_TEXT = 300  # letters of a description that count


@dataclass(frozen=True)
class CodedColumn:
    """One attribute of n products: `raw[codes[row]]` is what the row says, raw[0] is "" (nothing said). Codes are of the smallest
    unsigned type that holds them."""

    raw: list[str]
    codes: npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class TextRows:
    """n texts in one buffer, UTF-8, each followed by a line feed; `starts` int64[n + 1]."""

    data: bytes | memoryview
    starts: npt.NDArray[np.int64]

    def __getitem__(self, row: int) -> bytes:
        return bytes(self.data[self.starts[row] : self.starts[row + 1] - 1])


class FacetReader:
    """Reads one store's products; a context, because it keeps a temporary table of them."""

    def __init__(self, store: Store) -> None:
        self._reading = store._database.reading(fresh=True)
        self._cursor: duckdb.DuckDBPyConnection

    def __enter__(self) -> FacetReader:
        self._cursor = self._reading.__enter__()
        # Numbered by rowid and joined: ordering whole rows takes twice as long (2.4 million products: 7.5 s against 3.7).
        self._cursor.execute("""CREATE TEMP TABLE facet_items AS
            WITH place AS (SELECT rowid AS number, (row_number() OVER (ORDER BY item_id) - 1)::INTEGER AS row FROM items)
            SELECT row, item_id, title, category, brand, color, size, price, description, attributes
            FROM items JOIN place ON items.rowid = place.number""")
        self.n_items = int(self._cursor.execute("SELECT count(*) FROM facet_items").fetchall()[0][0])
        return self

    def __exit__(self, *error: object) -> None:
        self._reading.__exit__(None, None, None)

    def attribute_keys(self) -> list[tuple[str, int, int, float]]:
        """(key, products that have it, distinct values, mean length of a value) of each key of the attributes, by name. Keys whose
        values are addresses are left out."""
        return [
            (str(key), int(items), int(values), float(length))
            for key, items, values, length in self._cursor.execute("""
                SELECT entry.key, count(*), count(DISTINCT entry.value), avg(len(entry.value))
                FROM (SELECT unnest(map_entries(attributes)) AS entry FROM facet_items) WHERE entry.value <> ''
                GROUP BY entry.key HAVING NOT bool_or(contains(entry.value, '://')) ORDER BY entry.key""").fetchall()
        ]

    def column(self, base: str, keys: Sequence[str], pattern: str = "") -> CodedColumn:
        """The first that says something of: the column `base` of items ("" for none), the attributes `keys` in this order, what
        `pattern` (RE2, on the lower-case title without accents) finds in the title, several findings joined by "/"."""
        assert base in ("", *BASE)
        said = [f"nullif(trim({base}), '')"] if base else []
        said += ["nullif(trim(attributes[?]), '')"] * len(keys)
        values: list[object] = list(keys)
        if pattern:
            said.append(
                "nullif(array_to_string(list_distinct(regexp_extract_all(lower(strip_accents(title)), ?)), '/'), '')"
            )
            values.append(pattern)
        told = f"coalesce({', '.join([*said, chr(39) * 2])})"
        table = f"CREATE OR REPLACE TEMP TABLE facet_said AS SELECT row, {told} AS raw FROM facet_items"  # noqa: S608 - of BASE
        self._cursor.execute(table, values)
        raw = [
            str(one)
            for (one,) in self._cursor.execute(
                "SELECT DISTINCT raw FROM facet_said WHERE raw <> '' ORDER BY raw"
            ).fetchall()
        ]
        coded = self._cursor.execute("""WITH coded AS (SELECT raw, row_number() OVER (ORDER BY raw)::INTEGER AS code
                FROM (SELECT DISTINCT raw FROM facet_said WHERE raw <> ''))
            SELECT row, code FROM facet_said JOIN coded USING (raw)""").fetchnumpy()
        kind = np.uint8 if len(raw) < 1 << 8 else np.uint16 if len(raw) < 1 << 16 else np.uint32
        codes: npt.NDArray[Any] = np.zeros(self.n_items, kind)
        codes[np.asarray(coded["row"])] = np.asarray(coded["code"])
        return CodedColumn(["", *raw], codes)

    def prices(self) -> npt.NDArray[np.float32]:
        """float32[n], nan where unknown or too large for one."""
        column = self._cursor.execute(
            "SELECT coalesce(CASE WHEN abs(price) < 1e30 THEN price END, 'nan'::DOUBLE)::FLOAT AS price"
            " FROM facet_items ORDER BY row"
        ).fetchnumpy()
        return np.asarray(column["price"], np.float32)

    def ids(self) -> TextRows:
        """The item ids."""
        return self._texts("item_id")

    def texts(self) -> TextRows:
        """Title, attributes and the beginning of the description, in lower case without accents."""
        return self._texts(f"""lower(strip_accents(concat_ws(' ', title, category, brand, color,
            array_to_string(map_values(attributes), ' '), left(description, {_TEXT}))))""")

    def _texts(self, expression: str) -> TextRows:
        parts: list[bytes] = []
        for start in range(0, self.n_items, _CHUNK):
            table = f"SELECT replace({expression}, chr(10), ' ') AS text FROM facet_items WHERE row >= ? AND row < ? ORDER BY row"  # noqa: S608 - the two above
            texts = self._cursor.execute(table, [start, start + _CHUNK]).fetchnumpy()["text"]
            parts.append(("\n".join(texts) + "\n").encode("utf-8", "replace"))
        data = b"".join(parts)
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10).astype(np.int64) + 1
        return TextRows(data, np.concatenate([np.zeros(1, np.int64), ends]))

    def title_words(self) -> dict[str, int]:
        """How many titles hold each word (of two letters and more, plain lower case), of a sample of the catalogue."""
        return {
            str(word): int(count)
            for word, count in self._cursor.execute(
                """SELECT word, count(*) FROM (SELECT unnest(list_distinct(regexp_extract_all(lower(strip_accents(title)), '[\\pL\\pN]{2,}'))) AS word
                       FROM facet_items WHERE row % ? = 0) GROUP BY word""",
                [self._step()],
            ).fetchall()
        }

    def heads(self, least: int = 3) -> Mapping[str, list[tuple[str, int]]]:
        """What titles are about: the last word of a title's first part ("jumper" of "Harrow Wool Jumper, Olive, M") → (category,
        titles), most first, of words that at least so many titles of the sample end in."""
        found: dict[str, list[tuple[str, int]]] = {}
        rows = self._cursor.execute(
            """WITH heads AS (SELECT category, regexp_extract(lower(strip_accents(regexp_extract(title, '^[^,;|(/\\[]+'))),
                       '([\\pL\\pN]+(?:-[\\pL]+)*)\\s*$', 1) AS head FROM facet_items WHERE row % ? = 0 AND category <> '')
               SELECT head, category, count(*) AS times FROM heads WHERE len(head) > 2 GROUP BY head, category
               QUALIFY sum(count(*)) OVER (PARTITION BY head) >= ? ORDER BY head, times DESC, category""",
            [self._step(), least],
        ).fetchall()
        for head, category, times in rows:
            found.setdefault(str(head), []).append((str(category), int(times)))
        return found

    def _step(self) -> int:
        return max(1, -(-self.n_items // _SAMPLE))
