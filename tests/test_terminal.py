"""What reaches a terminal: titles, ids and messages are data there, ids are never cut, and lists can be read by
scripts."""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from recgraph.cli import main
from recgraph.store.db import Store
from recgraph.terminal import console_class, json_text, printable

ACTING = "\x1b[31mred\x1b[0m \x1b]0;owned\x07 \x9b2J \u202eleft\u202c z\u200bero\ufeff\x7f"
LONG = "A rather long product title that a marketplace seller wrote {} for the search engine"


@pytest.fixture
def ask(make_store: Callable[..., Store]) -> Callable[..., Result]:
    """ask(items, events, *arguments) → the command's result, run on a store of these rows, 80 columns wide."""

    def run(items: list[str], events: list[str], *arguments: str) -> Result:
        store = make_store(["item_id,title,category,price", *items], ["user_id,ts,action,item_id", *events])
        store.close()
        return CliRunner().invoke(
            main, [*arguments, "--store", str(store.path)], env={"COLUMNS": "80", "NO_COLOR": "1"}
        )

    return run


def harmless(text: str) -> bool:
    """Nothing but line ends among the control and format characters."""
    return not {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")} - {"\n"}


@given(st.text(st.characters(exclude_categories=())))
def test_a_printable_text_is_one_line_without_anything_that_acts(text: str) -> None:
    seen_signs = set(
        "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
    )  # format by name, yet visible
    assert harmless("".join(c for c in printable(text) if c not in seen_signs))
    assert "\n" not in printable(text)
    json_text(text).encode()  # lone surrogates too


def test_words_stay_and_what_acts_is_seen_or_gone() -> None:
    assert printable("Größe\tM, 麻\n") == "Größe M, 麻 "
    assert printable(ACTING) == "\ufffd[31mred\ufffd[0m \ufffd]0;owned\ufffd \ufffd2J left zero\ufffd"
    assert json.loads(json_text({"title": ACTING + "\n"})) == {"title": ACTING + "\n"}


def test_a_console_cleans_what_a_command_forgot_to_and_knows_no_markup() -> None:
    file = io.StringIO()
    console_class()(file=file, width=200).print("[/b] :smile: " + ACTING)
    assert harmless(file.getvalue())
    assert "[/b] :smile:" in file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["items"], ["users"], ["history", "--user", "[/u]"]], ids=lambda command: command[0]
)
def test_brackets_in_a_title_or_an_id_are_shown_as_they_stand(ask: Callable[..., Result], command: list[str]) -> None:
    """Bug: `Sale [/b] tee` ended the list in a MarkupError, `[red]loud[/red]` was shown as `loud`."""
    told = ask(["m1,Sale [/b] tee,,", "m2,Tee [red]loud[/red],,"], ["[/u],2026-05-01 10:00,click,m1"], *command)
    assert told.exit_code == 0, told.output
    expected = {"items": ["Sale [/b] tee", "Tee [red]loud[/red]"], "users": ["[/u]"], "history": ["m1  Sale [/b] tee"]}
    assert all(text in told.output for text in expected[command[0]])


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["table", "json"])
@pytest.mark.parametrize(
    "command", [["items"], ["users"], ["history", "--user", "\x1b[1mu\u202e"]], ids=lambda command: command[0]
)
def test_no_escape_of_a_title_or_an_id_reaches_the_terminal(
    ask: Callable[..., Result], command: list[str], more: list[str]
) -> None:
    told = ask([f"e1\x9b,Tee {ACTING},,"], ["\x1b[1mu\u202e,2026-05-01 10:00,click,e1\x9b"], *command, *more)
    assert told.exit_code == 0, told.output
    assert harmless(told.output)


def test_nor_one_of_an_error_message(ask: Callable[..., Result]) -> None:
    told = ask(["e1,Tee,,"], ["u,2026-05-01 10:00,click,e1"], "history", "--user", "nobody\x1b[31m")
    assert told.exit_code == 2
    assert "No events of user 'nobody\ufffd[31m'" in told.output
    assert harmless(told.output)


def test_ids_are_whole_at_80_columns_and_titles_wrap(ask: Callable[..., Result]) -> None:
    """Bug: the first column shrank to nothing."""
    ids = ["sku-1", "sku-22", "sku-333", "0190d1f2-7c3e-7a51-9f00-1234567890ab"]
    told = ask([f"{key},{LONG.format(key)},home.kitchen.small_appliances,1249.5" for key in ids], [], "items")
    lines = told.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(line.split()[:1] == [key] for line in lines) for key in ids)
    assert told.output.count("1,249.50") == 4
    words = told.output.split()
    assert all(words.count(word) >= 4 for word in ("rather", "marketplace", "engine"))


@pytest.mark.slow
def test_lists_can_be_had_as_json(ask: Callable[..., Result]) -> None:
    rows = ["a,Tee,shirts,9.5"], ["u,2026-05-01 10:00,purchase,a"]
    [item] = json.loads(ask(*rows, "items", "--json").output)
    assert (item["item_id"], item["title"], item["price"], item["in_stock"]) == ("a", "Tee", 9.5, True)


def test_a_history_and_the_users_too(ask: Callable[..., Result], tmp_path: Path) -> None:
    rows = ["a,Tee,shirts,9.5"], ["u,2026-05-01 10:00,purchase,a"]
    [event] = json.loads(ask(*rows, "history", "--user", "u", "--json").output)
    assert event == {
        "user_id": "u", "seq": 1, "ts": "2026-05-01T10:00:00", "action": "purchase", "item_id": "a", "query": "", "position": None, "title": "Tee",
    }  # fmt: skip
    told = CliRunner().invoke(main, ["users", "--json", "--store", str(tmp_path / "shop.duckdb")])
    assert json.loads(told.output) == [
        {"user_id": "u", "events": 1, "purchases": 1, "first": "2026-05-01T10:00:00", "last": "2026-05-01T10:00:00"}
    ]


def test_a_list_of_some_users_says_how_many_there_are(make_store: Callable[..., Store]) -> None:
    store = make_store("item_id,title\nA,Tee", "user_id,ts,action,item_id\nu,2025-01-01,click,A\nv,2025-01-01,click,A")
    path = str(store.path)
    store.close()
    told = [CliRunner().invoke(main, ["users", "--limit", limit, "--store", path]).output for limit in ("1", "2")]
    assert "1 of 2 users" in told[0]
    assert "of 2 users" not in told[1]
