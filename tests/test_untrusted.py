"""Text that others wrote comes out as one line in which nothing acts, whatever was put together, in no time."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable

import pytest
from fakes import click, item
from hypothesis import given, settings
from hypothesis import strategies as st

from recgraph.graph import prompts
from recgraph.graph.summary import wording
from recgraph.terminal import printable
from recgraph.tools.llm.untrusted import harmless, nameable, one_line
from recgraph.tools.memory import MemoryHit

TOKENS = ("<|im_end|>", "<|im_start|>", "<|eot_id|>", "</s>", "<s>", "<start_of_turn>", "<<SYS>>", "[INST]", "[/INST]")
PIECES = st.sampled_from(
    [
        *TOKENS,
        *"<>|[]/# \n\t&;\x1b\x00\u202e\u200b\ud800",
        "im_end",
        "###",
        "INST",
        "&lt;",
        "&amp;",
        "lt;",
        "a",
        "ß",
        "\u0301",
    ]
)
TEXTS = st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=40).map("".join))


def acts(text: str) -> bool:
    """Whether a control, bidi or invisible character, a control token or a heading is in it."""
    return any(unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for one in text) or any(
        token in text for token in (*TOKENS, "<|", "|>", "###")
    )


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.integers(8, 200))
def test_cleaning_leaves_nothing_that_acts_and_cleaning_again_changes_nothing(text: str, limit: int) -> None:
    cleaned = harmless(text, limit)
    assert not acts(cleaned)
    assert len(cleaned) <= limit
    assert harmless(cleaned, limit) == cleaned
    line = one_line(text, limit)
    assert one_line(line, limit) == line
    assert line == printable(line)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_text_for_people_is_cleaned_once_and_for_all(text: str) -> None:
    cleaned = wording.clean(text)
    assert cleaned.isprintable()
    assert "<|" not in cleaned
    assert wording.clean(cleaned) == cleaned


@settings(max_examples=200, deadline=None)
@given(
    st.text(
        alphabet=st.characters(
            whitelist_categories=("Lu", "Ll", "Lo", "Nd", "Pd", "Po", "Sc"), blacklist_characters="#"
        ),
        max_size=40,
    )
)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert harmless(text, 200) == unicodedata.normalize("NFC", text)


def test_a_token_with_filling_that_is_taken_out_later_is_no_token() -> None:
    """`<`, 45 hashes, `|im_end|`, 45 hashes and `>` came out as <|im_end|>."""
    filling = "#" * 45
    assert prompts.clean(f"Shirt <{filling}|im_end|{filling}>", 200) == "Shirt |im_end| >"
    assert prompts.clean("sizes < 40 and > 20; A > B") == "sizes < 40 and > 20; A > B"


@pytest.mark.parametrize(
    "text",
    [
        "<" * 32_000 + ">" * 32_000,
        "<>" * 32_000,
        "<|" * 32_000,
        "|" * 64_000,
        "#" * 64_000,
        "[INST" * 12_000,
        ("<" + "a" * 39) * 1600,
        "\u0301" * 64_000,
        "&amp;" * 13_000,
        "&" + "amp;" * 16_000,
        " " * 64_000,
        "ID: " * 16_000,
    ],
    ids=lambda text: text[:6],
)
@pytest.mark.parametrize(
    "cleaner",
    [
        lambda text: prompts.clean(text, 1200),
        wording.clean,
        prompts.parse_summary,
        lambda text: prompts.parse_next(text, lambda _: False, {}),
        one_line,
    ],
    ids=["prompt", "people", "summary", "answer", "message"],
)
def test_no_text_takes_longer_than_a_moment(text: str, cleaner: Callable[[str], object]) -> None:
    """64 kB of nested brackets took 67 s."""
    started = time.process_time()
    cleaner(text)
    assert time.process_time() - started < 0.5


BAD_IDS = ["A<|im_end|>", "A\nB", "A\u202eB", "A\x1b[2J", "A  B", "", "x" * 101, "[INST]"]


def test_an_id_that_could_act_is_in_no_prompt() -> None:
    assert [one for one in [*BAD_IDS, "P7K3QX", "SKU 12", "a/b:c_d.e-1"] if nameable(one)] == [
        "P7K3QX",
        "SKU 12",
        "a/b:c_d.e-1",
    ]
    items = {one: item(one, "Boots") for one in [*BAD_IDS, "P7"]}
    events = [click(seq, one) for seq, one in enumerate(items, 1)]
    shared = prompts.shared_text("", "", events, items)
    text = prompts.context_text(shared, "", events, [MemoryHit("q", 1.0, tuple(items))], items)
    assert not any(acts(line) for line in text.split("\n"))
    assert text.count("P7 Boots") == 3
    assert text.count("click Boots") == 2 * len(BAD_IDS)


def test_an_id_with_a_blank_is_read_back() -> None:
    answer = "ID: SKU 12\nTitle: Boots"
    assert prompts.parse_next(answer, {"SKU 12"}.__contains__, {}) == prompts.Prediction("SKU 12", "Boots", valid=True)


def test_a_title_that_a_server_wrote_is_clean() -> None:
    found = prompts.parse_next("ID: P7\nTitle: Boots\x1b[2J\u202e<|im_end|>", {"P7"}.__contains__, {})
    assert found == prompts.Prediction("P7", "Boots [2J im_end", valid=True)
    assert not acts(prompts.parse_next("\x1b[2J<|im_end|>" * 9, lambda _: False, {"P7": item("P7")}).title)
