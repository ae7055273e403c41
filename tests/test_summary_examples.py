"""Examples for the adapter `summarize`: true to their prompts, in many wordings, of the prompts that serve; and the
checks on written summaries."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import pytest
from fakes import SHOP_EVENTS, SHOP_ITEMS, FakeLLM, click, item, search

from recgraph.graph.prompts import block_prompt
from recgraph.graph.summary.grounding import CatalogueWords
from recgraph.graph.summary.summarizers import LLMSummarizer, ProfileSummarizer, Work, data_lines
from recgraph.store.db import Store
from recgraph.store.records import Event, Item
from recgraph.train.examples.rows import Row
from recgraph.train.summary.checks import copy_rate, grounding_rate, prompt_context, summary_report, written
from recgraph.train.summary.examples import Plan, part_of, summary_examples, user_examples
from recgraph.train.summary.facts import Shown, gist
from recgraph.train.summary.phrases import phrase

COLORS, BRANDS, KINDS = ("Olive", "Navy", "Rust"), ("Harrow", "Fenn"), ("shirts", "boots", "knitwear")
ITEMS: dict[str, Item] = {
    f"I{n}": item(
        f"I{n}",
        f"{BRANDS[n % 2]} Linen Thing {n // 3}, {COLORS[n % 3]}, M",
        category=KINDS[n // 6 % 3],
        brand=BRANDS[n % 2],
        color=COLORS[n % 3],
        size="M",
        price=40.0 + n,
        parent_id=f"P{n // 3}",
        description="Soft linen.",
    )
    for n in range(40)
}
VOCABULARY = CatalogueWords(
    {"brand": set(BRANDS) | {"Gucci"}, "color": set(COLORS) | {"Purple"}, "category": {*KINDS, "hats"}}
)


def history(count: int) -> list[Event]:
    events = [click(n, f"I{n % 40}", "purchase" if n % 5 == 0 else "click") for n in range(1, count + 1)]
    return [search(n, f"linen thing {n}") if n % 7 == 3 else event for n, event in enumerate(events, 1)]


def rows(seed: int = 7, count: int = 33, **plan: int) -> list[tuple[str, str, str]]:
    drawn = user_examples(
        "U1", history(count), ITEMS, Plan(per_user={"block": 6, "recurrent": 6, "merge": 4}), VOCABULARY, seed, "€"
    )
    return [(row.kind, row.prompt.user, row.answer) for row in drawn]


@pytest.mark.slow
def test_every_answer_names_only_what_its_prompt_shows() -> None:
    found = [row for seed in range(12) for row in rows(seed)]
    assert {kind for kind, _, _ in found} == {"block", "recurrent", "merge"}
    report = summary_report(
        [answer for _, _, answer in found], [user for _, user, _ in found], VOCABULARY, lambda text: len(text.split())
    )
    assert (report["grounded"], report["numbers"], report["copies"], report["accepted"]) == (1.0, 1.0, 0.0, 1.0)
    assert report["tokens_mean"] < 50


def test_answers_are_english_with_every_place_filled() -> None:
    for seed in range(10):
        for _, _, answer in rows(seed):
            assert not re.search(r"[{}|\0]|  |\b[A-Z]\b(?!\.)", answer.replace(" M.", " ")), answer
            assert re.fullmatch(r"[A-Z].*\.", answer), answer
            assert not re.search(r"\b(they|They) \w+(es|ks|ys)\b (?!over)", answer), answer


def test_the_same_facts_read_differently_and_the_same_seed_reads_the_same() -> None:
    events = history(5)
    told = gist("block", events, events, ITEMS, (), Shown(data_lines(events, ITEMS, "€"), "€"))
    assert told
    texts = {phrase(told, Random(seed), "€") for seed in range(40)}
    assert len(texts) > 30
    assert all("€" in text and "Harrow" in text for text in texts)
    assert rows(3) == rows(3) != rows(4)


def test_the_prompts_are_those_that_a_run_sends() -> None:
    events = history(5)
    llm = FakeLLM("They like clothes.")
    LLMSummarizer(llm, VOCABULARY, wording="fashion", currency="€").write(
        Work("", "U1", "recurrent", 0, 0, events, events, ()), ITEMS, None
    )
    drawn = user_examples("U1", events, ITEMS, Plan(per_user={"block": 20}), VOCABULARY, 1, "€")
    assert llm.asked[0] == block_prompt(data_lines(events, ITEMS, "€"), wording="fashion")
    assert llm.asked[0] in [row.prompt for row in drawn]


def test_variants_share_one_description_in_a_prompt() -> None:
    lines = data_lines([click(1, "I3"), click(2, "I4")], ITEMS, "€")
    assert [line.endswith("Soft linen.") for line in lines] == [True, False]
    assert "€44" in lines[1]


def test_a_recurrent_answer_says_what_is_new_and_what_was_known() -> None:
    found = [row for seed in range(20) for row in rows(seed, count=12) if row[0] == "recurrent"]
    assert all("[Previous Preference Summary]" in user and "[Recent Data]" in user for _, user, _ in found)
    assert all(answer not in user for _, user, answer in found)
    assert any(re.search(r"\b(lately|recently|newest|recent)\b", answer.casefold()) for _, _, answer in found)


def test_a_user_without_known_products_gives_no_rows() -> None:
    assert user_examples("U1", [search(1, "shirt"), click(2, "GONE")], ITEMS, Plan(), VOCABULARY, 1) == []


@pytest.mark.slow
def test_parts_hold_out_whole_users_and_stay_as_users_are_added(make_store: Callable[..., Store]) -> None:
    users = [f"U{n}" for n in range(40)]
    ids = [line.split(",")[0] for line in SHOP_ITEMS.strip().splitlines()[1:]]
    lines = [
        f"{user},2025-03-{day:02},click,{ids[(day + len(user)) % len(ids)]},," for user in users for day in range(1, 9)
    ]
    head, *_ = SHOP_EVENTS.strip().splitlines()
    large = list(summary_examples(make_store(SHOP_ITEMS, [head, *lines]), Plan(), 7))
    small = list(summary_examples(make_store(SHOP_ITEMS, [head, *lines[: 8 * 20]], name="small"), Plan(), 7))
    first = {row.user_id for row in small}

    def facts(row: Row) -> tuple[str, ...]:
        return row.part, row.user_id, row.user, row.answer

    assert [facts(row) for row in small] == [facts(row) for row in large if row.user_id in first]
    assert all(row.part == part_of(row.user_id, 7, 0.1) for row in large)
    assert {row.part for row in large} == {"train", "valid", "test"}
    assert [row.group for row in large] == list(range(len(large)))
    assert (
        len(
            {
                row.user_id
                for row in summary_examples(make_store(SHOP_ITEMS, [head, *lines], name="again"), Plan(), 7, users=9)
            }
        )
        == 9
    )


def test_the_grounding_rate_counts_what_stands_nowhere_in_its_own_prompt() -> None:
    contexts = [["click Harrow Shirt, Olive; shirts"], ["click Fenn Boots, Navy; boots"]]
    texts = ["This shopper goes for olive shirts from Harrow.", "They return to Harrow."]
    assert grounding_rate(texts, contexts, VOCABULARY) == 1 / 2
    assert grounding_rate(["", "Navy boots."], contexts, VOCABULARY) == 1 / 2  # an empty answer is a miss
    assert grounding_rate([], [], VOCABULARY) == 0


def test_the_copy_rate_counts_whole_lines_and_most_five_grams() -> None:
    context = ["click Harrow Linen Shirt, Olive, M; shirts", "purchase Fenn Chunky Leather Boots, Navy; boots; €90"]
    own = "This shopper goes for shirts and boots, in olive or navy, and spends about €90."
    whole = f"The data: {context[0]}. So they may well like shirts, and linen ones first of all, and nothing else than that."
    most = "purchase Fenn Chunky Leather Boots, Navy; boots"
    assert [copy_rate([text], [context]) for text in (own, whole, most)] == [0, 1, 1]


@pytest.mark.parametrize("previous", ["", "They like boots."])
def test_the_context_of_a_prompt_is_its_data(previous: str) -> None:
    from recgraph.graph.prompts import recurrent_prompt

    lines = ["click A; shirts", 'search "b"']
    prompt = (
        recurrent_prompt(previous, lines, wording="fashion") if previous else block_prompt(lines, wording="fashion")
    )
    assert prompt_context(prompt.user) == [*([previous] if previous else []), *lines]


def test_an_invented_brand_costs_grounding_and_acceptance() -> None:
    users = [block_prompt(["click Harrow Shirt, Olive; shirts"], wording="fashion").user] * 2
    report = summary_report(["They like Gucci.", "They like shirts by Harrow."], users, VOCABULARY, len)
    assert (report["grounded"], report["accepted"], report["rows"]) == (0.5, 0.5, 2.0)


def test_summaries_are_asked_for_in_batches_and_in_order() -> None:
    llm = FakeLLM("One.", "Two.", "Three.")
    prompts = [block_prompt([text], wording="fashion") for text in "abc"]
    assert written(llm, prompts, at_once=2) == ["One.", "Two.", "Three."]
    assert llm.asked == prompts


def test_the_profile_still_says_the_same_of_titles_without_categories() -> None:
    """Title words are counted only where they are needed; that may not change a word."""
    plain = {f"I{n}": item(f"I{n}", f"Rose Garden Soap number {n}") for n in range(6)}
    events = [click(n, f"I{n}") for n in range(6)]
    said = ProfileSummarizer().write(Work("", "U1", "hierarchical", 0, 0, events, events, ()), plain)
    assert "Rose Garden" in said.sentences[0][0]
