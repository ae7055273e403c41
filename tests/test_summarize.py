"""Summaries: how often the summarizer is asked, what is cached, what is checked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from fakes import FakeLLM, click, item, search

from recgraph.errors import LLMTimeout
from recgraph.graph.state import RunContext
from recgraph.graph.summary.blocks import SUMMARISED, split_blocks
from recgraph.graph.summary.grounding import CatalogueWords
from recgraph.graph.summary.summarize import build_summarize
from recgraph.graph.summary.summarizers import LLMSummarizer, ProfileSummarizer, Summarizer, Work, Written
from recgraph.store.records import Event, Item, Summary

ITEMS = {
    f"I{n}": item(f"I{n}", f"Thing {n}", category="shirts", color="olive" if n % 2 else "navy", brand="Harrow")
    for n in range(1, 400)
}


class Counting:
    """A summarizer that counts how often it is asked, summary by summary."""

    whole = False

    def __init__(self, inner: Summarizer) -> None:
        self.inner, self.name, self.works = inner, inner.name, list[Work]()

    def write(self, work: Work, items: Mapping[str, Item], deadline: float | None) -> Written:
        self.works.append(work)
        return self.inner.write(work, items, deadline)


class World:
    """One user, one cache, one counting summarizer."""

    def __init__(self, paradigm: str, inner: Summarizer | None = None) -> None:
        self.cache: dict[str, Summary] = {}
        self.counting = Counting(inner or ProfileSummarizer())
        self.paradigm = paradigm
        self.graph = build_summarize(self.counting, self.cache.get, block=5, group=4)

    def run(self, history: list[Event]) -> tuple[dict[str, Any], int]:
        """The subgraph's result and the number of calls of the summarizer."""
        before = len(self.counting.works)
        result = self.graph.invoke({"user_id": "U1", "paradigm": self.paradigm, "history": history, "items": ITEMS})
        for summary in result.get("made") or []:
            self.cache[summary.input_hash] = summary
        return result, len(self.counting.works) - before


def events(count: int) -> list[Event]:
    return [click(n, f"I{n}") for n in range(1, count + 1)]


def test_blocks_hold_five_items_and_their_searches() -> None:
    history = [search(1, "a"), click(2, "I2"), search(3, "b"), *[click(n, f"I{n}") for n in range(4, 9)]]
    assert [[event.seq for event in block] for block in split_blocks(history, 5)] == [[1, 2, 3, 4, 5, 6, 7], [8]]


@pytest.mark.parametrize("paradigm", ["recurrent", "hierarchical"])
def test_the_second_run_asks_the_summarizer_nothing(paradigm: str) -> None:
    world = World(paradigm)
    first, calls = world.run(events(23))
    # five blocks; four of them merged; that and the fifth merged
    assert calls == (5 if paradigm == "recurrent" else 5 + 1 + 1)
    second, calls_again = world.run(events(23))
    assert calls_again == 0
    assert second["summary"] == first["summary"]
    assert second["cached_blocks"] == second["blocks"] == 5


@pytest.mark.parametrize("count", [22, 23, 25, 26, 100])
def test_one_new_event_costs_one_block_when_recurrent(count: int) -> None:
    world = World("recurrent")
    world.run(events(count))
    result, calls = world.run(events(count + 1))
    assert calls == 1
    assert result["summary"].event_seqs == tuple(range(1, count + 2))


@pytest.mark.parametrize(("count", "levels"), [(22, 2), (79, 2), (98, 3), (301, 3)])
def test_one_new_event_costs_one_block_and_at_most_one_merge_a_level_when_hierarchical(count: int, levels: int) -> None:
    world = World("hierarchical")
    world.run(events(count))
    result, calls = world.run(events(count + 1))
    new = world.counting.works[-calls:]
    assert [work.level for work in new if work.level == 0] == [0]
    assert len({work.level for work in new}) == calls  # no level twice
    assert calls <= 1 + levels
    assert result["summary"].event_seqs == tuple(range(1, count + 2))


def test_a_changed_title_makes_a_new_summary() -> None:
    world = World("recurrent")
    world.run(events(3))
    world.graph.invoke(
        {
            "user_id": "U1",
            "paradigm": "recurrent",
            "history": events(3),
            "items": {**ITEMS, "I2": item("I2", "Renamed")},
        }
    )
    assert len(world.counting.works) == 2


def test_no_history_has_no_summary_and_costs_nothing() -> None:
    for paradigm in ("recurrent", "hierarchical"):
        result, calls = World(paradigm).run([])
        assert (result.get("summary"), calls, result["blocks"]) == (None, 0, 0)


def test_the_recurrent_step_sees_the_previous_summary_and_only_its_block() -> None:
    world = World("recurrent")
    world.run(events(12))
    assert [len(work.parts) for work in world.counting.works] == [0, 1, 1]
    assert [[event.seq for event in work.new] for work in world.counting.works] == [
        [1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10],
        [11, 12],
    ]


def test_every_sentence_names_events_of_the_summary() -> None:
    result, _ = World("recurrent").run(events(40))
    for text, seqs in result["summary"].sentences:
        assert text
        assert seqs
        assert set(seqs) <= set(result["summary"].event_seqs)


@pytest.mark.parametrize("paradigm", ["recurrent", "hierarchical"])
def test_counting_at_once_says_what_counting_step_by_step_says(paradigm: str) -> None:
    """2,000 clicks took 9 s: every block's profile counted the whole history before it."""
    for count in (1, 5, 6, 23, 103):
        world = World(paradigm)
        chained, _ = world.run(events(count))
        world.counting.whole = True
        world.cache.clear()
        whole, calls = world.run(events(count))
        assert calls == 1
        assert whole["summary"].sentences == chained["summary"].sentences
        assert whole["summary"].level == chained["summary"].level
        again, calls = world.run(events(count))
        assert (calls, again["summary"], again["cached_blocks"]) == (0, whole["summary"], again["blocks"])


def long_history(count: int) -> list[Event]:
    return [click(n, f"I{n % 390 + 1}") for n in range(1, count + 1)]


def test_of_an_endless_history_the_newest_part_is_summarised() -> None:
    for count in (SUMMARISED + 1, 5_000, 60_000):
        history = long_history(count)[-600:]
        result, calls = World("recurrent").run(history)
        seqs = result["summary"].event_seqs
        assert SUMMARISED // 2 <= len(seqs) <= SUMMARISED
        assert seqs[-1] == count
        assert calls == result["blocks"] <= SUMMARISED // 5


def test_a_summary_goes_on_while_its_beginning_moves() -> None:
    """The newest 500 events are read, and what is summarised of them begins at another one every fifty or so."""
    world, begins = World("recurrent"), set()
    history = long_history(900)
    world.run(history[:380])
    for count in range(390, 900, 10):
        result, calls = world.run(history[max(0, count - 500) : count])
        assert calls <= 4, count
        assert result["summary"].event_seqs[-1] == count
        begins.add(result["summary"].event_seqs[0])
    assert len(begins) > 5


class Tiring(FakeLLM):
    """Answers so many times, then the deadline has passed."""

    def __init__(self, times: int) -> None:
        super().__init__("Likes navy shirts.", "Olive now.", "Mostly Harrow.", "Navy and olive.", "Shirts above all.")
        self.times = times

    def generate(self, *asked: Any, **options: Any) -> Any:
        self.times -= 1
        if self.times < 0:
            raise LLMTimeout("late")
        return super().generate(*asked, **options)


def test_what_the_time_suffices_for_is_kept_and_the_next_request_goes_on() -> None:
    llm = Tiring(2)
    world = World("recurrent", LLMSummarizer(llm, VOCABULARY, wording="fashion"))
    result, _ = world.run(events(25))
    assert result["summary"].event_seqs == tuple(range(1, 11))
    assert result["degraded"] == ["summarize: the time sufficed for 2 of 5 blocks; the next request goes on from there"]
    llm.times = 9
    result, calls = world.run(events(25))
    assert (calls, result["summary"].event_seqs[-1]) == (3, 25)
    llm.times = 0
    with pytest.raises(LLMTimeout):  # with nothing there the profile stands in
        World("recurrent", LLMSummarizer(llm, VOCABULARY, wording="fashion")).run(events(5))


def test_a_summary_leaves_half_of_the_time_to_the_answer() -> None:
    world = World("recurrent", LLMSummarizer(FakeLLM("Likes navy shirts."), VOCABULARY, wording="fashion"))
    asked = {"user_id": "U1", "paradigm": "recurrent", "history": events(25), "items": ITEMS}
    result = world.graph.invoke(asked, context=RunContext(None, time.monotonic()))
    assert result["summary"].event_seqs == (1, 2, 3, 4, 5)
    assert "1 of 5 blocks" in result["degraded"][0]


VOCABULARY = CatalogueWords(
    {"brand": {"Harrow", "Gucci"}, "color": {"olive", "navy", "red"}, "category": {"shirts", "boots"}}
)


def summarized(*answers: str) -> tuple[dict[str, Any], FakeLLM]:
    llm = FakeLLM(*answers)
    return World("recurrent", LLMSummarizer(llm, VOCABULARY, wording="fashion")).run(events(3))[0], llm


def test_a_grounded_llm_summary_is_kept_with_its_events() -> None:
    result, llm = summarized("The shopper likes Harrow shirts in olive.")
    assert result["summary"].text == "The shopper likes Harrow shirts in olive."
    assert result["summary"].model == "fake"
    assert not result["degraded"]
    assert len(llm.asked) == 1


def test_an_invented_brand_is_asked_for_once_more() -> None:
    result, llm = summarized("Loves Gucci boots.", "Likes navy shirts.")
    assert result["summary"].text == "Likes navy shirts."
    assert "gucci" in llm.asked[1].user.casefold()
    assert not result["degraded"]


def test_a_summary_that_stays_ungrounded_is_replaced_and_that_is_recorded() -> None:
    result, llm = summarized("Loves Gucci boots.")
    assert len(llm.asked) == 2
    assert result["summary"].model == "profile"
    assert "gucci" not in result["summary"].text.casefold()
    assert any("replaced by the profile" in note and "gucci" in note.casefold() for note in result["degraded"])


def test_a_copied_summary_is_replaced() -> None:
    copied = " ".join(f"click Thing {n}; Harrow; shirts; {'olive' if n % 2 else 'navy'}" for n in (1, 2, 3)) + "."
    result, _ = summarized(copied)
    assert result["summary"].model == "profile"
