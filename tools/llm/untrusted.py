"""Text that others wrote (a catalogue, a shopper, a server) as one line in which nothing acts.

Every function cuts first and cleans afterwards, in time linear in what is left, so that no text can take a request's
time. `harmless` is for prompts: no control token of a chat template can stand in it, whatever was put together to leave
one. `one_line` is for messages, logs and the notes of an answer. Knows neither models nor prompts.
"""

from __future__ import annotations

import re
import unicodedata

READ = 8  # times the limit: so much of a text is looked at, for what goes leaves room
ID_LIMIT = 100  # characters of an id that a prompt may show
_SEPARATORS = ("Cc", "Zl", "Zp")  # ends of lines and of files, escapes
_UNSEEN = ("Cf", "Co", "Cs")  # zero-width and bidi marks, private use, halves of a pair
_TAG = re.compile(r"<{1,2}(?![\s<>])([^<>]{0,40})>{1,2}")
_INST = re.compile(r"\[(/?(?:INST|SYS|AVAILABLE_TOOLS|TOOL_[A-Z]+))\]", re.IGNORECASE)
_HASHES = re.compile(r"#{3,}")
_WIDE = str.maketrans("＜＞｜［］＃", "<>|[]#")  # some templates write their tokens so
_ROLE = re.compile(r"\b(system|assistant|user|human|instructions?|response)(?:\s*:)+", re.IGNORECASE)
# An opening bracket stays where it compares ("size < 40"), a bar and a closing one never stay side by side.
_MARKS = re.compile(r"<(?! \w)|\|>")


def one_line(text: str, limit: int = 300) -> str:
    """At most `limit` characters, white space and control characters as single blanks, what cannot be seen gone."""
    return _shortened(" ".join(_seen(text[: READ * limit]).split()), limit)


def harmless(text: str, limit: int) -> str:
    """`one_line` without what a chat template takes for its own: `<|im_end|>`, `</s>`, `<start_of_turn>`, `[INST]`,
    `###`, `assistant:`.

    Cleaning twice gives the same as once. What is taken out leaves a blank, which stays, so that the parts around it
    never become a token; known control tokens have none.
    """
    text = _seen(text[: READ * limit]).translate(_WIDE)
    if any(mark in text for mark in "<>[#"):
        text = _TAG.sub(lambda tag: f" {tag.group(1).strip('|/ ')} ", text)
        text = _INST.sub(r" \1 ", _HASHES.sub(" ", text))
        text = _MARKS.sub(" ", " ".join(text.split()))
    if ":" in text:
        text = _ROLE.sub(r"\1 ", text)
    return _shortened(" ".join(text.split()), limit)


def nameable(item_id: str) -> bool:
    """Whether an id may stand in a prompt as it is: an answer has to give it back letter by letter."""
    return bool(item_id) and harmless(item_id, ID_LIMIT) == item_id


def _seen(text: str) -> str:
    """Composed (NFC), separators as blanks, without what cannot be seen."""
    if not text.isprintable():
        kinds = ((character, unicodedata.category(character)) for character in text)
        text = "".join(" " if kind in _SEPARATORS else character for character, kind in kinds if kind not in _UNSEEN)
    return unicodedata.normalize("NFC", text)


def _shortened(text: str, limit: int) -> str:
    """At most `limit` characters of a clean text, cut at a blank where there is one."""
    return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0].rstrip(" ,;-<") + "…"
