"""Every prompt recgraph sends, and the parsers of the answers. Training renders these very texts.

Two rules shape them. First, what calls share stands first: the system text is the same for every shopper, then comes
what the two recommendation tasks share (summary, search, events, what similar searches found), then the task, and the
candidate last, so that a prefix cache computes the shared part once. Second, catalogue and query text is data: `clean`
makes one line of it in which no chat control token and no section heading can stand. An id that is not clean is never
shown, because an answer has to give it back letter by letter.

Sources: F 4.2 (task, execution requirements, output format, product ids and titles), T figures 3-8.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from difflib import SequenceMatcher

from recgraph.graph.state import Prediction
from recgraph.store.records import Event, Item
from recgraph.tools.llm.protocol import Form, Prompt
from recgraph.tools.llm.untrusted import harmless, nameable
from recgraph.tools.memory import MemoryHit

# Of the prompts that each adapter is for. A version goes up when their bytes change: it is part of what cached
# summaries are known by, and stands on the cards of adapters. Another's stays, and so do its caches.
VERSIONS: Mapping[str, str] = {
    "recommend": "1",
    "next": "2",
    "fit": "2",
    "summarize": "1",
    "tallrec": "1",
    "llamarec": "1",
}
TITLE_LIMIT = (
    90  # characters of a title in a prompt: about 22 tokens; catalogue titles run to 500 characters of key words
)
QUERY_LIMIT = 120
ASKED_LIMIT = 200  # characters of a query that are read at all
ID_LEAD, TITLE_LEAD = "ID:", "\nTitle:"
_MONTHS = "January February March April May June July August September October November December".split()
_SIZED, _SIZES = 100, 5  # events that sizes are read from, the newest; categories whose sizes are told


# What the prompts' own lines begin with; a title stands on a line of its own, and would be one of them.
_HEADINGS = re.compile(
    r"\[[\[\s]*((?:current|earlier|recent|historical|next|top|user|previous)?\s*(?:preferences?|summar(?:y|ies)|search(?:es)?|"
    r"items?|events?|facts?|data|task|candidates|results)\b[^\[\]]{0,40})(\]?)",
    re.IGNORECASE,
)
_LEADS = re.compile(r"\b(task|id|title|answer)(?:\s*:)+", re.IGNORECASE)


def clean(text: str, limit: int = TITLE_LIMIT) -> str:
    """Catalogue or query text as one harmless line of at most `limit` characters (tools/llm/untrusted.py), in which no
    heading and no form of an answer stands."""
    text = harmless(text, limit)
    if "[" in text or ":" in text:
        if _HEADINGS.search(text):  # none stays: what stands between two of them would become one
            text = harmless(text.replace("[", " ").replace("]", " "), limit)
        text = " ".join(_LEADS.sub(r"\1 ", text).split())
    return text


_WORDS = {
    "fashion": {
        "role": "You are the recommender of a fashion shop. You read what one shopper did, in order of time, and "
        "carry out the task at the end.",
        "needs": (
            "Requirements: later events count more. Compare the colours, sizes and styles the shopper looked at: they "
            "show fine preferences. "
            "Mind season, occasion and holidays. Products near the top of the results for the shopper's search are "
            "bought more often: prefer "
            "them where they fit. New products are as good as known ones."
        ),
        "data": "purchase",
        "person": "preferences, personality, and shopping habits",
        "owner": "shopping",
    },
    "general": {
        "role": "You are a recommender. You read what one person did, in order of time, and carry out the task at the "
        "end.",
        "needs": (
            "Requirements: later events count more. Compare the items the person looked at: their differences show "
            "fine preferences. Mind "
            "the season. Items near the top of the results for the person's search are chosen more often: prefer them "
            "where they fit. New "
            "items are as good as known ones."
        ),
        "data": "reading and purchase",
        "person": "preferences and interests",
        "owner": "interest",
    },
}
_TASKS = (
    "Task NEXT: name the product that comes next. Answer in two lines, 'ID:' and 'Title:', and nothing else.\n"
    "Task FIT: say whether the person will choose the given next product. The summary shows long-term interests, the "
    "recent items "
    "short-term ones; consider both. Answer Yes or No."
)


_TASK_NEXT, _TASK_FIT = "[Task]\nNEXT", "[Task]\nFIT\n\n[Next Item]\n"


def system_text(wording: str) -> str:
    """The system text both recommendation tasks share; the same for every user, so a warm process has it in its prefix
    cache."""
    words = _WORDS[wording]
    return f"{words['role']}\n{words['needs']}\n{_TASKS}"


def item_text(item: Item, *, with_id: bool = False) -> str:
    """A product in one line: title, then brand, category and colour where the title does not already name them (F 5.1's
    attributes)."""
    title = clean(item.name)
    said = title.casefold()
    values = (item.brand, item.category.replace("_", " "), item.color)
    extra = [clean(value, 30) for value in values if value and value.casefold() not in said]
    line = "; ".join([title, *extra])
    return f"{item.item_id} {line}" if with_id and nameable(item.item_id) else line


def event_text(event: Event, items: Mapping[str, Item], *, with_id: bool = True) -> str:
    """An event in one line: the action and the query or the product."""
    if event.action == "search":
        return f'search "{clean(event.query, QUERY_LIMIT)}"'
    return f"{event.action} {item_text(items.get(event.item_id) or Item(event.item_id), with_id=with_id)}"


def _numbered(lines: Sequence[str]) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def shared_text(summary: str, query: str, recent: Sequence[Event], items: Mapping[str, Item]) -> str:
    """What both tasks read first of one user: long-term summary, current search, the most recent items (T figure 8, T
    5.4)."""
    parts = []
    if summary:
        parts.append(f"[Preference Summary]\n{clean(summary, 1200)}")
    if query:
        parts.append(f"[Current Search]\n{clean(query, QUERY_LIMIT)}")
    if recent:
        parts.append("[Recent Items]\n" + _numbered([event_text(event, items) for event in recent]))
    return "\n\n".join(parts)


def facts_text(today: datetime | None, history: Sequence[Event], items: Mapping[str, Item]) -> str:
    """What a shop knows without any summary: the day, and the size this person takes in each category, those of the
    latest events first; a purchase tells more of it than a look."""
    taken: dict[str, Counter[str]] = {}
    for event in reversed(history[-_SIZED:]):
        item = items.get(event.item_id)
        if item and item.size and item.category:
            taken.setdefault(item.category, Counter())[item.size] += 3 if event.action == "purchase" else 1
    sizes = [
        f"{clean(category.replace('_', ' '), 30)} {clean(found.most_common(1)[0][0], 20)}"
        for category, found in list(taken.items())[:_SIZES]
    ]
    lines = [f"Date: {today.day} {_MONTHS[today.month - 1]}"] if today else []
    return "\n".join([*lines, *([f"Sizes: {'; '.join(sizes)}"] if sizes else [])])


def context_text(
    shared: str, facts: str, earlier: Sequence[Event], memory: Sequence[MemoryHit], items: Mapping[str, Item]
) -> str:
    """All that stands before the task (F 4.2): `shared_text`, `facts_text`, earlier events, and what shoppers with this
    query saw on top. T's Yes/No prompt has the first part alone; here both tasks read the whole, so that it is read
    once."""
    parts = [text for text in (shared, f"[Facts]\n{facts}" if facts else "") if text]
    if earlier:
        parts.append("[Earlier Events]\n" + _numbered([event_text(event, items) for event in earlier]))
    shown: set[str] = set()
    lines = []
    for hit in memory:
        for item_id in hit.item_ids:
            if item_id in items and item_id not in shown and nameable(item_id):
                shown.add(item_id)
                lines.append(f"{item_id} {clean(items[item_id].name)}")
    if lines:
        parts.append("[Top Results of Similar Searches]\n" + _numbered(lines))
    return "\n\n".join(parts)


def next_prompt(context: str, *, wording: str) -> Prompt:
    """Task NEXT (F 4.2)."""
    return Prompt(system_text(wording), f"{context}\n\n{_TASK_NEXT}" if context else _TASK_NEXT)


def fit_prompts(context: str, candidates: Sequence[Item], *, wording: str) -> list[Prompt]:
    """Task FIT (T figure 8), one prompt a candidate, the candidate last so that everything before it is shared.

    A candidate is its title, as in the figure: this line is read once for each of twenty candidates, so every token of
    it counts.
    """
    system, head = system_text(wording), f"{context}\n\n{_TASK_FIT}" if context else _TASK_FIT
    return [Prompt(system, head + clean(item.name)) for item in candidates]


def answer_text(item: Item) -> str:
    """The answer to task NEXT as training teaches it and `next_form` constrains it."""
    return f"{ID_LEAD} {item.item_id}{TITLE_LEAD} {clean(item.name)}"


def next_form(item_ids: Sequence[str], items: Mapping[str, Item], *, free_title: bool) -> Form:
    """The form of the answer to task NEXT when its id may only be one of `item_ids`.

    With `free_title` the model goes on to write the title (F 4.2). Without, the title is the chosen product's own, so
    the model decides for one of the products: an untrained 135 M model was seen to write titles such as "Nine of the
    Best".
    """
    named = {item_id: f" {clean(items[item_id].name)}" for item_id in item_ids if item_id in items}
    if not free_title and len(named) == len(item_ids):
        return Form(
            lead=ID_LEAD, choices=tuple(f" {item_id}{TITLE_LEAD}{named[item_id]}" for item_id in item_ids), middle=""
        )
    drafts = {f" {item_id}": title for item_id, title in named.items()}
    return Form(lead=ID_LEAD, choices=tuple(f" {item_id}" for item_id in item_ids), middle=TITLE_LEAD, drafts=drafts)


_ANSWER = re.compile(r"\s*ID:\s*(\S[^\n]*)\n\s*Title:\s*(\S[^\n]*?)\s*")
_ID = re.compile(r"[A-Za-z0-9_.:-]{2,64}")
_ANSWER_LIMIT = 2000  # characters of an answer that are read: 64 tokens are asked for


def parse_next(text: str, known: Callable[[str], bool], shown: Mapping[str, Item]) -> Prediction:
    """Reads the answer to task NEXT. The one place where model output is repaired, and the record says so.

    `known(item_id)` tells whether the catalogue has it; `shown` are the items of the prompt. Repairs, in this order:
    the first word that is a known id; the title, or a title at least 90 % alike, of an item that was shown. Otherwise
    the first line is kept as a title without an id (retrieval can still use it) and the prediction is invalid. What is
    kept as a title is clean.
    """
    text = text[:_ANSWER_LIMIT]
    match = _ANSWER.fullmatch(text)
    if match and known(match.group(1).rstrip()):
        return Prediction(match.group(1).rstrip(), clean(match.group(2), 200), valid=True)
    written = match.group(2) if match else re.sub(r"^\s*(?:ID:\s*\S*\s*)?(?:Title:)?\s*", "", text)
    title = clean(written.strip().split("\n")[0], 200)
    for word in _ID.findall(text):
        if known(word):
            named = shown.get(word)
            rest = title.replace(word, "").strip(" :,-;")
            return Prediction(word, rest or (clean(named.name, 200) if named else ""), valid=False, repaired=True)
    for item_id, item in shown.items():
        if title and SequenceMatcher(None, title.casefold(), clean(item.name).casefold()).ratio() >= 0.9:
            return Prediction(item_id, title, valid=False, repaired=True)
    return Prediction("", title, valid=False)


# ── Summaries (task "summarize") ──────────────────────────────────────────────────────────────────────

_SUMMARIZER = "You write short, true preference summaries. You name only what stands in the data."


def block_prompt(lines: Sequence[str], *, wording: str) -> Prompt:
    """First block (T figures 3 and 6)."""
    words = _WORDS[wording]
    return Prompt(
        _SUMMARIZER,
        f"Given the historical {words['data']} data of a user, including the titles, descriptions, and attributes of "
        "the items, craft a concise "
        f"summary that captures the user's {words['person']}.\n\n[Historical Data]\n{_numbered(lines)}",
    )


def recurrent_prompt(previous: str, lines: Sequence[str], *, wording: str) -> Prompt:
    """Previous summary and next block (T figure 7)."""
    words = _WORDS[wording]
    return Prompt(
        _SUMMARIZER,
        f"Given the following summary of a user's {words['owner']} preference, and a list of the user's recent "
        "events, analyze whether the user's "
        "preferences and habits have changed. Taking into account both the existing summary and the most recent "
        "events, generate an updated "
        "concise summary that captures the user's preferences. The newly generated summary should be consistent with "
        "the format of the previous "
        "Preference Summary. It should serve as a complete summary of the user, rather than a separate narrative of "
        "the original summary and "
        f"current preferences.\n\n[Previous Preference Summary]\n{clean(previous, 1200)}\n\n[Recent "
        f"Data]\n{_numbered(lines)}",
    )


def merge_prompt(summaries: Sequence[str], *, wording: str) -> Prompt:
    """Summaries of several blocks, oldest first (T figure 4)."""
    return Prompt(
        _SUMMARIZER,
        "Given a series of user preferences summaries arranged in chronological order, generate a concise summary "
        "that encapsulates the user's "
        "overall preference. The newly generated summary should be consistent with the format of the given "
        "summaries.\n\n"
        f"[User Preferences Summaries]\n{_numbered([clean(text, 1200) for text in summaries])}",
    )


def stricter(prompt: Prompt, fault: str) -> Prompt:
    """The same once more, after an answer with a fault: one of the next three texts."""
    return Prompt(prompt.system, f"{prompt.user}\n\nWrite in your own words. {fault}")


FAULT_EMPTY = "The answer was empty."
FAULT_COPIED = "Do not copy the data."


def fault_invented(names: Sequence[str]) -> str:
    """That a summary named what its data does not."""
    return f"Do not mention {', '.join(clean(name, 40) for name in names)}: the data does not."


def parse_summary(text: str) -> str:
    """An LLM's summary as one paragraph: headings, list marks and an unfinished last sentence are dropped. "" where
    nothing is left."""
    lines = [re.sub(r"^\s*(?:\[[^\]]*\]|\d+\.|[-*#]+)\s*", "", line).strip() for line in text.split("\n")]
    paragraph = clean(" ".join(line for line in lines if line), 1200)
    end = max(paragraph.rfind(mark) for mark in ".!?")
    return paragraph[: end + 1] if end > 0 else paragraph


# ── The baselines of the evaluation (tasks "tallrec" and "llamarec") ──────────────────────────────────


def raw_history_text(query: str, shown: Sequence[Event], items: Mapping[str, Item]) -> str:
    """What TALLRec and LlamaRec read instead of a summary: the search and the history itself, oldest first.

    The product shows ids, for its task NEXT names them. Of a raw history they would take a third of the room.
    """
    lines = _numbered([event_text(event, items, with_id=False) for event in shown])
    return "\n\n".join(filter(None, [shared_text("", query, [], items), f"[Recent Items]\n{lines}" if lines else ""]))


_CHOOSE = "[Task]\nCHOOSE the next item among the candidates. Answer with its letter alone.\n\n[Candidates]\n"


def choice_prompt(shared: str, candidates: Mapping[str, Item], *, wording: str) -> Prompt:
    """LlamaRec: the candidates by letter, in the order they are listed; the answer is one of the letters."""
    lines = "\n".join(f"{letter}. {clean(item.name)}" for letter, item in candidates.items())
    return Prompt(system_text(wording), (f"{shared}\n\n" if shared else "") + _CHOOSE + lines)
