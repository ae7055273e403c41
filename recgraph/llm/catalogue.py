"""The ids of a catalogue as a trie of one model's tokens, in a file, beside the code with which vLLM holds answers to
it (vllm_ids.py).

The answer's form is the recommender's own (graph/prompts.py), its tokens those of tools/llm/forms.py, so that server
and process allow the same. It knows neither vLLM nor the store.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recgraph.graph.prompts import ID_LEAD, TITLE_LEAD
from recgraph.llm import vllm_ids
from recgraph.llm.launch import PROCESSOR
from recgraph.tools.llm.adapter_sets import Base
from recgraph.tools.llm.chat import ChatText
from recgraph.tools.llm.forms import Encode, tokenize_form
from recgraph.tools.llm.protocol import Form, Prompt
from recgraph.tools.llm.served_ids import served_ids
from recgraph.tools.llm.untrusted import nameable

_AT_ONCE = 50_000  # ids that are tokenised together: a tokenizer's own records of a million take gigabytes
Rows = np.ndarray[Any, np.dtype[np.int32]]


def write_catalogue(model: Path, ids: Sequence[str], cache: Path) -> Path:
    """The folder for vLLM's Python, of the model in `model`, made once for the same ids. Its name tells clients what
    lies in it. An id that cannot stand in a prompt is left out; ValueError where none is left."""
    named = sorted({one for one in ids if nameable(one)})
    if not named:
        raise ValueError("None of the catalogue's ids can stand in a prompt.")
    code = Path(vllm_ids.__file__)
    told = hashlib.sha256("\n".join([Base.of(model).fingerprint, ID_LEAD, TITLE_LEAD, *named]).encode())
    told.update(code.read_bytes())
    name = served_ids(told.hexdigest()[:8], len(named))
    target = cache / "served" / name
    if not target.is_dir():
        chat = _chat(model)
        text, tokens = chat.render(Prompt("a", "b"))
        whole = chat.encode(text + ID_LEAD)
        lead = whole[len(tokens) :] if whole[: len(tokens)] == tokens else chat.encode(ID_LEAD)
        rows = answer_rows(chat.encode_all, chat.end, lead, named)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".trie-", dir=target.parent) as work:
            made = Path(work) / name
            made.mkdir()
            shutil.copyfile(code, made / f"{PROCESSOR.partition(':')[0]}.py")
            write_trie(made / vllm_ids.TRIE, rows, chat.line_ends, [chat.end])
            made.rename(target)
    return target


def answer_rows(encode: Encode, end: int, lead: Sequence[int], ids: Sequence[str]) -> Rows:
    """The tokens of "ID: X" and the next line's "Title:" for each id, a row each, padded with -1, sorted."""
    parts = []
    middle: tuple[int, ...] = ()
    for start in range(0, len(ids), _AT_ONCE):
        choices = tuple(f" {one}" for one in ids[start : start + _AT_ONCE])
        form = tokenize_form(encode, end, Form(ID_LEAD, choices, TITLE_LEAD))
        parts.append(form.table.rows)
        middle = form.middle[1:]  # its first token closes the id
    width = len(lead) + max(part.shape[1] for part in parts) + len(middle)
    rows = np.full((len(ids), width), -1, dtype=np.int32)
    rows[:, : len(lead)] = lead
    at = 0
    for part in parts:
        rows[at : at + len(part), len(lead) : len(lead) + part.shape[1]] = part
        at += len(part)
    lengths = (rows >= 0).sum(axis=1)
    for place, token in enumerate(middle):
        rows[np.arange(len(rows)), lengths + place] = token
    return rows[np.lexsort(rows.T[::-1])]


def write_trie(file: Path, rows: Rows, line_ends: Iterable[int], stops: Sequence[int]) -> None:
    """Writes what `vllm_ids.IdTrie` reads. `rows` are sorted."""
    tokens, first = [], [np.zeros(1, dtype=np.int64)]
    new = np.zeros(len(rows), dtype=bool)  # whether a row parts from the one before it, up to this column
    new[0] = True
    parent = np.zeros(len(rows), dtype=np.int64)  # of each row, the node it has come to
    count = 1
    for column in rows.T:
        new[1:] |= column[1:] != column[:-1]
        begins = new & (column >= 0)  # rows that bring a node of their own
        tokens.append(column[begins])
        first.append(parent[begins])
        parent = np.where(column >= 0, count + np.cumsum(begins) - 1, parent)
        count += int(begins.sum())
    edges = np.bincount(np.concatenate(first[1:]), minlength=count)
    starts = np.concatenate([first[0], np.cumsum(edges)])
    arrays = [np.array(sorted(line_ends)), np.array(stops), starts, np.concatenate(tokens)]
    header = np.array([vllm_ids.FORMAT, *map(len, arrays)])
    with file.open("wb") as written:
        for array in (header, *arrays):
            written.write(np.ascontiguousarray(array, dtype=np.int32).tobytes())


def _chat(model: Path) -> ChatText:
    from transformers import AutoTokenizer

    load: Callable[..., Any] = AutoTokenizer.from_pretrained
    return ChatText(load(model, trust_remote_code=False))
