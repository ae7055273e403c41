"""Settings: one frozen object, loaded once at a door; inside, plain values are passed on.

Order of look-up for each field: explicit argument, environment variable RECGRAPH_<NAME>, `recgraph.toml` in the current
folder, default. "Not given" is None.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from recgraph.errors import SettingsError

PARADIGMS = ("recurrent", "hierarchical")
MODES = ("fused", "paper")
SUMMARIZERS = ("auto", "profile", "llm")
CONSTRAINTS = ("shown", "catalogue", "off")
TITLES = ("auto", "free", "own")
ATTRIBUTES = ("shown", "hidden")


@dataclass(frozen=True)
class Settings:
    """Everything a deployment may choose. Sizes are counts of items unless a unit is named."""

    store: str = "recgraph.duckdb"  # path of the DuckDB store
    cache: str = ""  # folder for converted models; "" is ~/.cache/recgraph
    # base model: folder or hub id; "default": SmolLM2-135M; "none"; "": none, unless another setting asks for one
    llm: str = ""
    llm_url: str = ""  # OpenAI-compatible vLLM server, e.g. http://127.0.0.1:8000/v1
    llm_api_key: str = ""
    # adapter set: name or folder, or one task's folder; "none"; "" is the store's own (`recgraph adapters use`)
    adapter: str = ""
    embedder: str = ""  # sentence encoder folder or hub id; "" is all-MiniLM-L6-v2
    wording: str = "fashion"  # prompt wording: fashion | general
    paradigm: str = "recurrent"
    mode: str = "fused"
    # auto: profile below 1 B parameters, unless a summarize adapter with a good exam runs on a GPU or server; else llm
    summarizer: str = "auto"
    # free: the LLM writes the title (F 4.2); own: it is the chosen id's; auto: free where it is large or, taught, in
    # mode paper
    titles: str = "auto"
    constrain: str = "shown"  # ids the answer may name: those shown in the prompt, the whole catalogue, or off
    attributes: str = "shown"  # hidden: prompts and summaries know products by their titles alone (F table 3)
    k: int = 10
    candidates: int = 20  # items that are reranked
    block: int = 5  # items a summary block (T 5.2.2)
    merge: int = 4  # block summaries merged into one a level
    recent: int = 3  # most recent items, shared by both prompts (T 5.4)
    history: int = 2  # earlier events shown to the recommender before those; the summary covers all of them
    prompt_tokens: int = 1024  # longest prompt (F 5.1); the history is cut first
    memory_queries: int = 2  # Q of F 4.2
    memory_products: int = 2  # V of F 4.2
    mixup: int = 1  # N of F 4.4
    # share of the Yes/No order in the final order; 0: none is asked; None by what was measured (docs/adapters.md)
    rerank_weight: float | None = None
    deadline: float = 30.0  # seconds for the whole recommendation; what does not fit is left out (docs/operations.md)

    def __post_init__(self) -> None:
        for name, allowed in (
            ("paradigm", PARADIGMS),
            ("mode", MODES),
            ("summarizer", SUMMARIZERS),
            ("constrain", CONSTRAINTS),
            ("titles", TITLES),
            ("attributes", ATTRIBUTES),
            ("wording", ("fashion", "general")),
        ):
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{name} is '{getattr(self, name)}'; it must be one of {', '.join(allowed)}.")
        for name, least in (
            ("k", 1),
            ("candidates", 1),
            ("block", 1),
            ("merge", 2),
            ("memory_queries", 0),
            ("memory_products", 0),
            ("recent", 0),
            ("history", 0),
            ("prompt_tokens", 256),
        ):
            if getattr(self, name) < least:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if not self.deadline > 0:  # nor NaN
            raise SettingsError(f"deadline is {self.deadline}; it must be a positive number of seconds.")
        if self.rerank_weight is not None and not 0 <= self.rerank_weight <= 1:
            raise SettingsError(f"rerank_weight is {self.rerank_weight}; it must lie between 0 and 1.")

    def __repr__(self) -> str:
        """As a dataclass prints itself, but a key is a secret and never shown."""
        shown = (
            f"{f.name}={'***' if f.name == 'llm_api_key' and self.llm_api_key else repr(getattr(self, f.name))}"
            for f in fields(self)
        )
        return f"Settings({', '.join(shown)})"

    @property
    def asks_llm(self) -> bool:
        """Whether a language model is asked: one that is named, or what only one can do. Nothing else asks for it,
        because the small one that is at hand adds little or nothing to the order of products, and takes a second
        (docs/results.md)."""
        if self.llm == "none":
            return False
        chosen = self.llm or self.llm_url or self.adapter not in ("", "none")
        return bool(chosen or self.mode == "paper" or self.summarizer == "llm" or self.rerank_weight)

    @property
    def cache_folder(self) -> Path:
        return Path(os.path.expanduser(self.cache)) if self.cache else Path.home() / ".cache" / "recgraph"


def _typed(name: str, kind: str, value: Any, origin: str) -> Any:
    try:
        if kind.startswith("int"):
            return int(value)
        if kind.startswith("float"):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        raise SettingsError(f"{origin} sets {name} to '{value}', which is not a number that it can be.") from None
    return str(value)


def _check_key(chosen: Mapping[str, Any], of_file: Collection[str], path: Path) -> None:
    """SettingsError where a folder's file names the server and somebody else gave the key: a folder may come from
    anywhere, and would have the key sent to an address of its own."""
    if "llm_url" in of_file and chosen["llm_url"] and chosen.get("llm_api_key") and "llm_api_key" not in of_file:
        raise SettingsError(
            f"{path} sets llm_url to '{chosen['llm_url']}', and a key that is not in that file is not sent to an "
            "address that a folder names. Set RECGRAPH_LLM_URL beside RECGRAPH_LLM_API_KEY, or unset the key."
        )


def load_settings(environ: Mapping[str, str] | None = None, folder: str | Path = ".", **given: Any) -> Settings:
    """Settings from explicit arguments (None is "not given"), environment, `recgraph.toml` in `folder`, defaults, in
    that order.

    Raises SettingsError for an unknown name or a value of the wrong kind, naming where it came from; and where the file
    names an LLM server that a key from elsewhere would be sent to.
    """
    environ = os.environ if environ is None else environ
    kinds = {f.name: str(f.type) for f in fields(Settings)}
    path = Path(folder) / "recgraph.toml"
    try:
        from_file: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from None
    for origin, names in ((str(path), from_file), ("the call", given)):
        unknown = sorted(set(names) - set(kinds))
        if unknown:
            raise SettingsError(f"{origin} sets '{unknown[0]}', which is no setting. Known: {', '.join(kinds)}.")
    chosen: dict[str, Any] = {}
    of_file: list[str] = []
    for name, kind in kinds.items():
        if given.get(name) is not None:
            chosen[name] = _typed(name, kind, given[name], "the call")
        elif f"RECGRAPH_{name.upper()}" in environ:
            chosen[name] = _typed(name, kind, environ[f"RECGRAPH_{name.upper()}"], f"RECGRAPH_{name.upper()}")
        elif name in from_file:
            chosen[name] = _typed(name, kind, from_file[name], str(path))
            of_file.append(name)
    _check_key(chosen, of_file, path)
    return Settings(**chosen)
