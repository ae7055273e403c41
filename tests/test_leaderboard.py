"""The leaderboard: what it claims and what it does not, that equal results give equal bytes, and that `--check` finds
what was changed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from recgraph.cli import main
from recgraph.errors import StoreError
from recgraph.evaluation.leaderboard.boards import Board
from recgraph.evaluation.leaderboard.svg import log_scale, scale, spread
from recgraph.evaluation.leaderboard.words import amount, chance, lead, shown
from recgraph.evaluation.leaderboard.write import MARKDOWN, MERGED, PAGE, check, sha256, write
from recgraph.evaluation.result_files import read, result_of, text_of
from recgraph.store.db import Store

ODD = "</svg><script>alert('x')</script> | **a** `b` & <b>"


def system(name: str, ndcg: float | None, **told: Any) -> dict[str, Any]:
    figure = {"mean": ndcg, "low": ndcg - 0.002, "high": ndcg + 0.002} if ndcg is not None else {"mean": None}
    curve = {"1": 0.01, "10": 0.1, "100": 0.4}
    groups = {
        "cold": {"cases": 20, "recall@10": 0.0, "ndcg@10": 0.0},
        "warm": {"cases": 80, "recall@10": 0.2, "ndcg@10": 0.1},
    }
    metrics = {
        "recall@10": {"mean": 0.11, "low": 0.1, "high": 0.12},
        "ndcg@10": figure,
        "mrr": {"mean": 0.03, "low": 0.02, "high": 0.04},
    }
    made = {
        "name": name,
        "uses": ["ids"],
        "settings": {"window": 50},
        "fit_seconds": 1.25,
        "score_ms": 0.5,
        "seeds": [7, 8],
    }
    return {**made, "metrics": metrics | {"invalid": {"mean": 0.0}}, "groups": groups, "curve": curve, **told}


def against(best: str, difference: float, half: float, p_holm: float) -> dict[str, Any]:
    return {
        "best": best,
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
        "p": p_holm,
        "p_holm": p_holm,
    }


def result(*systems: dict[str, Any], **told: Any) -> dict[str, Any]:
    """As evaluate writes it."""
    facts = {
        "dataset": "beauty",
        "split": "loo",
        "protocol": "full",
        "seen": "excluded",
        "cases": 100,
        "dropped": {"target seen": 3},
        "sample": 0,
    }
    facts |= {
        "items": 1000,
        "data_hash": "74be412967662f79",
        "revision": "a9fac33+",
        "machine": "EPYC, 2 CPUs",
        "date": "2026-11-21",
    }
    return {
        **facts,
        "command": "recgraph evaluate --split loo",
        "seconds": 12.5,
        "seeds": [7, 8],
        "systems": list(systems),
        **told,
    }


def clear(p_holm: float = 0.0002, half: float = 0.003) -> list[dict[str, Any]]:
    """Two systems .01 apart."""
    one, two = against("second", 0.01, half, p_holm), against("first", -0.01, half, p_holm)
    return [system("second", 0.05, against=two), system("first", 0.06, against=one)]


def project(folder: Path, **results: dict[str, Any]) -> Path:
    (folder / "metrics" / "leaderboard").mkdir(parents=True, exist_ok=True)
    for name, told in results.items():
        (folder / "metrics" / "leaderboard" / f"{name}.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


def texts(folder: Path) -> tuple[str, str]:
    write(folder)
    return (folder / PAGE).read_text(encoding="utf-8"), (folder / MARKDOWN).read_text(encoding="utf-8")


def board(name: str, told: dict[str, Any]) -> Board:
    return Board(name, result_of(told))


class Tags(HTMLParser):
    """Every tag of a page with its attributes, every address it names, and the text of its bold cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.bold: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag == "meta" else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-2:] == ["td", "b"]:
            self.bold.append(data)


# ── What it claims ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_best_system_is_bold_where_its_lead_over_the_second_excludes_zero(tmp_path: Path) -> None:
    page, markdown = texts(project(tmp_path, one=result(*clear())))
    said = (
        "first is best: NDCG@10 0.0600 (0.0580–0.0620). Its lead over second is +0.0100 (+0.0070 to +0.0130), p < .001."
    )
    assert lead(board("one", result(*clear()))).replace("\u00a0", " ") == said
    assert Tags(page).bold == ["first", "0.0600"]  # in the list of comparisons, and in the table
    assert "| **0.0600 (0.0580–0.0620)** |" in markdown
    assert "not separable" not in markdown.split("## beauty")[1]


@pytest.mark.parametrize(("p_holm", "half"), [(0.2, 0.003), (0.0002, 0.011), (0.05, 0.003), (0.0002, 0.01)])
def test_nothing_is_bold_where_the_interval_has_zero_or_holm_finds_chance(
    tmp_path: Path, p_holm: float, half: float
) -> None:
    page, markdown = texts(project(tmp_path, one=result(*clear(p_holm, half))))
    assert Tags(page).bold == []
    assert "**" not in markdown.split("## beauty")[1]
    assert "No winner: first, NDCG@10 0.0600 (0.0580–0.0620), and second are not separable" in page
    assert markdown.count("not separable |") == 2


def test_a_third_system_that_is_not_separable_from_the_first_is_named() -> None:
    third = system("third", 0.049, against=against("first", -0.011, 0.02, 0.4))
    assert lead(board("one", result(*clear(half=0.02), third))).endswith("Not separable from first either: third.")


def test_lines_are_ordered_by_ndcg_and_equal_ones_by_name() -> None:
    found = board("one", result(system("b", 0.05), system("a", 0.05), system("none", None), system("c", 0.06)))
    assert [line.name for line in found.lines] == ["c", "a", "b", "none"]


def test_systems_from_another_machine_are_named_with_it(tmp_path: Path) -> None:
    far = system("far", 0.05, machine="EPYC, 16 CPUs, H100")
    page, markdown = texts(project(tmp_path, one=result(far, system("near", 0.01))))
    assert "- machine: EPYC, 2 CPUs; far on EPYC, 16 CPUs, H100\n" in markdown
    assert "EPYC, 2 CPUs; far on EPYC, 16 CPUs, H100" in page


def test_what_is_missing_is_a_dash_and_never_zero(tmp_path: Path) -> None:
    run = system("run", 0.05, fit_seconds=None, score_ms=None, seeds=[], settings={}, curve={}, groups={}, uses=["run"])
    del run["metrics"]["mrr"]
    del run["metrics"]["recall@10"]["low"]
    bare = {
        name: value
        for name, value in result(run, system("other", 0.01)).items()
        if name not in ("machine", "seconds", "dropped", "revision")
    }
    page, markdown = texts(project(tmp_path, one=bare))
    assert "| run | run | 0.0500 (0.0480–0.0520) | 0.1100 | – | – | – | – | none |" in markdown
    for fact in ("machine", "seconds", "dropped cases", "code"):
        assert f"- {fact}: –\n" in markdown
        assert f"<dt>{fact}</dt>\n<dd>–</dd>" in page
    (row,) = (
        row
        for row in csv.DictReader(io.StringIO((tmp_path / "metrics/leaderboard/one.csv").read_text()))
        if row["system"] == "run"
    )
    assert [row[name] for name in ("mrr", "fit_seconds", "score_ms", "difference", "ndcg@10_cold", "curve@10")] == [
        ""
    ] * 6
    assert (shown(None), amount(None), chance(None)) == ("–", "–", "p\u00a0–")


def test_numbers_that_are_none_are_missing_too(tmp_path: Path) -> None:
    file = project(tmp_path) / "metrics/leaderboard/one.json"
    file.write_text(json.dumps(result(system("a", 0.05, score_ms=float("nan")))), encoding="utf-8")
    _, markdown = texts(tmp_path)
    assert "| 1.25 | – | 7, 8 |" in markdown
    assert "NaN" not in (tmp_path / MERGED).read_text()


def test_numbers_are_rounded_with_a_true_minus_and_no_negative_zero() -> None:
    assert [shown(0.05528), shown(-0.0135, sign=True), shown(0.0135, sign=True)] == ["0.0553", "−0.0135", "+0.0135"]
    assert [shown(-0.00001), shown(-0.00001, sign=True), shown(12.3, "novelty@10")] == ["0.0000", "0.0000", "12.30"]
    assert [amount(0.0), amount(0.34), amount(9.5), amount(99.5), amount(1234.5)] == [
        "< 0.01",
        "0.34",
        "9.50",
        "99.5",
        "1,234",
    ]
    assert [chance(0.0002), chance(0.541), chance(1.0)] == [
        "p\u00a0<\u00a0.001",
        "p\u00a0=\u00a0.541",
        "p\u00a0=\u00a01.000",
    ]


def test_every_section_says_what_it_rests_on(tmp_path: Path) -> None:
    page, markdown = texts(project(tmp_path, one=result(*clear())))
    said = {
        "data": "74be412967662f79 (hash of what systems are given and asked), 1,000 items",
        "split": "loo: each user's last target is predicted; other users' future is known, as in most papers",
        "protocol": "full: the target among all items listed by then",
        "seen items": "excluded: items of the history are no candidates",
        "cases": "100",
        "dropped cases": "3 (the target is in the history)",
        "seeds": "7, 8",
        "code": "a9fac33 with changes that are in no commit",
        "machine": "EPYC, 2 CPUs",
        "date": "2026-11-21",
        "seconds": "12.5",
    }
    for name, text in said.items():
        assert f"<dt>{name}</dt>\n<dd>{text}</dd>" in unescape(page)
        assert f"- {name}: {text}\n" in markdown
    assert "<dt>command</dt>\n<dd>recgraph evaluate --split loo</dd>" in page
    assert "- command: ` recgraph evaluate --split loo `" in markdown


def test_a_title_does_not_repeat_what_its_words_say(tmp_path: Path) -> None:
    """The file's name has the sample and what became of the history; the data set's has what was left out of it."""
    sampled = result(*clear(), dataset="mind, named items", sample=100, seen="ranked")
    _, markdown = texts(project(tmp_path, **{"mind-loo-full-ranked-100": sampled}))
    [found] = re.findall(r"^### (.*)$", markdown, re.MULTILINE)
    assert found == "Full ranking, leave-one-out, history's items ranked, sample of 100 cases"


def test_the_full_protocol_comes_first_and_the_split_that_leaks_nothing_before_the_other(tmp_path: Path) -> None:
    kinds = (("loo", "cold"), ("loo", "full"), ("loo", "sampled"), ("time", "full"), ("time", "other"))
    _, markdown = texts(
        project(tmp_path, **{f"beauty-{s}-{p}": result(*clear(), split=s, protocol=p) for s, p in kinds})
    )
    wanted = [
        "Full ranking, split in time",
        "Full ranking, leave-one-out",
        "Against drawn items, leave-one-out",
        "Cold items, leave-one-out",
    ]
    assert re.findall(r"^### (.*)$", markdown, re.MULTILINE) == [*wanted, "other, split in time"]


def test_results_of_one_data_set_say_what_sets_them_apart(tmp_path: Path) -> None:
    one, two, three = result(*clear()), result(*clear(), sample=100, seen="ranked"), result(*clear(), data_hash="0123")
    _, markdown = texts(project(tmp_path, **{"beauty-loo-full": one, "beauty-loo-full-llm": two, "other": three}))
    titles = re.findall(r"^### (.*)$", markdown, re.MULTILINE)
    usual = "Full ranking, leave-one-out"
    assert titles == [usual, f"{usual}: other", f"{usual}, history's items ranked, sample of 100 cases: llm"]
    assert (
        "beauty, split loo, was evaluated on different data (0123, 74be412967662f79): do not compare these tables."
        in markdown
    )


def test_missed_cases_and_invalid_answers_are_told(tmp_path: Path) -> None:
    run = system("run", 0.05, missing_cases=12, unknown_cases=3)
    run["metrics"]["invalid"] = {"mean": 0.25}
    for text in texts(project(tmp_path, one=result(run))):
        assert "run: 12 cases without a list count as missed, 3 lists are of no case." in text
        assert "run: 25.0% of the first ten name no product of the shop." in text
        assert "run is alone here: NDCG@10 0.0500" in text


# ── Names are data ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_names_cannot_break_out_of_the_page_or_the_table(tmp_path: Path) -> None:
    lines = [
        system(ODD, 0.05, uses=[ODD], settings={ODD: ODD}, against=against(ODD, -0.1, 0.01, 0.01), seeds=[1]),
        system("b", 0.04),
    ]
    odd = result(
        *lines, dataset=ODD, split=ODD, protocol=ODD, seen=ODD, command=f"{ODD} ``", machine=ODD, dropped={ODD: 1}
    )
    odd["low_resource"] = [{"system": ODD, "share": share, "ndcg@10": 0.01} for share in (0.1, 1)]
    page, markdown = texts(project(tmp_path, one=odd))
    tags = Tags(page)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in tags.tags}
    assert page.count("</svg>") == sum(tag == "svg" for tag, _ in tags.tags) == 5
    escaped = r"\</svg\>\<script\>alert('x')\</script\> \| \*\*a\*\* \`b\` \& \<b\>"
    assert f"## {escaped}\n" in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.split(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert f"- command: ``` {ODD} `` ```" in markdown


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(tmp_path: Path) -> None:
    page, _ = texts(
        project(
            tmp_path,
            one=result(*clear(), low_resource=[{"system": "first", "share": s, "ndcg@10": s} for s in (0.1, 1)]),
        )
    )
    tags = Tags(page)
    assert tags.open == []
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page)
    assert {attrs["href"] for tag, attrs in tags.tags if tag == "a"} == {"#b1"}
    assert not {name for _, attrs in tags.tags for name in attrs if name.startswith("on") or name in ("src", "style")}
    policy = [attrs["content"] for tag, attrs in tags.tags if tag == "meta" and attrs.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "prefers-color-scheme: dark" in page


def test_every_plot_has_a_title_and_a_description_of_its_own(tmp_path: Path) -> None:
    page, _ = texts(project(tmp_path, one=result(*clear()), two=result(*clear(), protocol="sampled")))
    plots = [ElementTree.fromstring(text) for text in re.findall(r"<svg .*?</svg>", page, re.DOTALL)]
    assert [plot[0].text for plot in plots[:4]] == [
        "NDCG@10 with 95 % intervals", "Recall@10 against latency", "Recall@k", "Cold against warm targets",
    ]  # fmt: skip
    assert plots[0][1].text == "first 0.0600 (0.0580–0.0620); second 0.0500 (0.0480–0.0520)"
    for plot in plots:
        assert plot.get("role") == "img"
        assert plot.get("aria-labelledby") == f"{plot[0].get('id')} {plot[1].get('id')}"
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 2 * len(plots)


def test_a_plot_leaves_out_what_was_not_measured_and_says_so(tmp_path: Path) -> None:
    page, _ = texts(project(tmp_path, one=result(*clear(), system("run", 0.01, score_ms=None, groups={}, curve={}))))
    assert "up and left is better; 1 without a time" in page
    few, _ = texts(project(tmp_path, one=result(system("run", None, score_ms=None, groups={}, curve={}))))
    assert "<svg" not in few


def test_a_bar_is_as_long_as_its_figure(tmp_path: Path) -> None:
    page, _ = texts(project(tmp_path, one=result(*clear())))
    first, second = (float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', page))
    assert second / first == pytest.approx(0.05 / 0.06, abs=0.002)


def test_scales_have_round_ticks_and_labels_stay_apart() -> None:
    assert scale(0, 0.0679, 0, 80).ticks == [0, 0.02, 0.04, 0.06, 0.08]
    assert scale(0, 0.0679, 0, 80)(0.02) == pytest.approx(20)
    assert scale(0, 0.000003, 0, 10).ticks[-1] == 0.001
    assert log_scale(0.1, 1000, 0, 40).ticks == pytest.approx([0.1, 1, 10, 100, 1000])
    assert log_scale(0.1, 1000, 0, 40)(10) == pytest.approx(20)
    assert log_scale(2, 2, 0, 40)(2) == pytest.approx(20)
    assert log_scale(0.14, 0.19, 0, 40).ticks == [0.14, 0.19]
    assert scale(0, 1, 0, 1).label(2500.04) == "2,500"
    assert spread([10, 11, 50], 15, 250) == [10, 25, 50]
    assert spread([249, 250, 100], 15, 250) == [235, 250, 100]


# ── The same results, the same bytes ──────────────────────────────────────────────────────────────────────────────────


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_equal_results_give_equal_bytes_however_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"a": result(*clear()), "b": result(*clear(0.3), protocol="cold")}
    write(project(tmp_path / "one", **told))
    turned = {
        name: json.loads(json.dumps(told[name]), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        for name in ("b", "a")
    }
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    write(project(tmp_path / "two", **turned))
    one, two = (
        {name: text for name, text in files(tmp_path / name).items() if name[-7:] not in ("/a.json", "/b.json")}
        for name in ("one", "two")
    )
    assert one == two
    assert sorted(one) == [MARKDOWN, PAGE, MERGED, "metrics/leaderboard/a.csv", "metrics/leaderboard/b.csv"]


def test_the_merged_results_are_signed_by_the_sha256_of_their_canonical_json(tmp_path: Path) -> None:
    _, digest = write(project(tmp_path, a=result(*clear()), b=result(*clear(), protocol="cold")))
    merged = json.loads((tmp_path / MERGED).read_text(encoding="utf-8"))
    assert list(merged["results"]) == ["a", "b"]
    assert merged["results"]["a"] == result(*clear())
    canonical = json.dumps(merged["results"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert merged["sha256"] == digest == hashlib.sha256(canonical).hexdigest() == sha256(merged["results"])
    assert f"<code>{digest}</code>" in (tmp_path / PAGE).read_text(encoding="utf-8")
    assert f"sha256 of all results: `{digest}`" in (tmp_path / MARKDOWN).read_text(encoding="utf-8")


def test_a_fresh_leaderboard_passes_the_check_and_the_check_writes_nothing(tmp_path: Path) -> None:
    made = write(project(tmp_path, a=result(*clear())))
    before = files(tmp_path)
    assert check(tmp_path) == made
    assert files(tmp_path) == before
    shutil.copytree(tmp_path, tmp_path.parent / "copy")
    assert check(tmp_path.parent / "copy")[1] == made[1]


@pytest.mark.parametrize("name", [MARKDOWN, PAGE, MERGED, "metrics/leaderboard/a.csv"])
def test_a_changed_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(project(tmp_path, a=result(*clear())))
    file = tmp_path / name
    file.write_bytes(file.read_bytes().replace(b"0.06", b"0.07", 1))
    with pytest.raises(
        StoreError, match=rf"^{re.escape(str(file))} is not what the results give.*recgraph leaderboard$"
    ):
        check(tmp_path)
    file.unlink()
    with pytest.raises(StoreError, match=rf"^{re.escape(str(file))} is missing"):
        check(tmp_path)


def test_a_changed_result_makes_every_file_wrong_and_the_sha256_another(tmp_path: Path) -> None:
    _, digest = write(project(tmp_path, a=result(*clear())))
    project(tmp_path, a=result(*clear(), cases=101))
    with pytest.raises(StoreError, match=rf"\(sha256 {digest}, but the results have [0-9a-f]{{64}}\)") as raised:
        check(tmp_path)
    for name in (MARKDOWN, PAGE, MERGED, "a.csv"):
        assert name in str(raised.value)


def test_a_sha256_that_is_not_that_of_its_results_is_told(tmp_path: Path) -> None:
    _, digest = write(project(tmp_path, a=result(*clear())))
    file = tmp_path / MERGED
    file.write_text(file.read_text(encoding="utf-8").replace(digest, "0" * 64), encoding="utf-8")
    with pytest.raises(StoreError, match=f"its sha256 {'0' * 64} is not that of its own results, {digest}"):
        check(tmp_path)
    file.write_text("[]", encoding="utf-8")
    with pytest.raises(StoreError, match="no JSON of a leaderboard"):
        check(tmp_path)


def test_a_table_that_no_result_gives_is_found(tmp_path: Path) -> None:
    write(project(tmp_path, a=result(*clear())))
    (tmp_path / "metrics/leaderboard/old.csv").write_text("system\n")
    with pytest.raises(StoreError, match=r"old\.csv belongs to no result"):
        check(tmp_path)


# ── What comes in ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_is_no_result_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    wrong = {
        "systems": result(),
        "mean": result(system("a", 0.1, fit_seconds="fast")),
        "without 'cases'": {**result(system("a", 0.1))},
    }
    del wrong["without 'cases'"]["cases"]
    for what, told in wrong.items():
        project(tmp_path, bad=told)
        with pytest.raises(
            StoreError, match=r"bad\.json is no result of recgraph evaluate .*recgraph evaluate … --out .*bad\.json$"
        ) as raised:
            write(tmp_path)
        assert {"systems": "it has no system", "mean": "'fast' is no number"}.get(what, what) in str(raised.value)
    for text in ("[1]", "{", "\udcff"):
        (tmp_path / "metrics/leaderboard/bad.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(StoreError, match=r"bad\.json"):
            write(tmp_path)
    assert not (tmp_path / PAGE).exists()


def test_a_folder_without_results_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"has no result; make one: recgraph evaluate --out .*NAME\.json$"):
        write(tmp_path)


def test_the_tidy_table_has_a_row_a_system_with_numbers_as_they_are(tmp_path: Path) -> None:
    write(project(tmp_path, a=result(*clear())))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "metrics/leaderboard/a.csv").read_text(encoding="utf-8"))))
    assert [row["system"] for row in rows] == ["first", "second"]
    wanted = {
        "dataset": "beauty",
        "reads": "ids",
        "ndcg@10": "0.06",
        "recall@10_low": "0.1",
        "against": "second",
        "p_holm": "0.0002",
    }
    wanted |= {"separable": "yes", "fit_seconds": "1.25", "ndcg@10_warm": "0.1", "curve@100": "0.4"}
    assert {name: rows[0][name] for name in wanted} == wanted


# ── From the evaluator to the page ────────────────────────────────────────────────────────────────────────────────────


def ran(*words: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.slow
def test_what_evaluate_writes_becomes_a_leaderboard_that_passes_its_check(
    make_store: Callable[..., Store], tmp_path: Path
) -> None:
    rng, events = np.random.default_rng(0), ["user_id,ts,action,item_id"]
    for user in range(30):
        rows = rng.permutation(40)[: int(rng.integers(10, 15))].tolist()
        events += [
            f"user {user},2025-{1 + day // 28:02}-{1 + day % 28:02} 10:00,purchase,I{item}"
            for day, item in enumerate(rows)
        ]
    store = make_store(["item_id,title", *(f"I{row},Thing {row}" for row in range(40))], events)
    store.close()
    results = {protocol: tmp_path / f"metrics/leaderboard/shop-loo-{protocol}.json" for protocol in ("full", "sampled")}
    for protocol, file in results.items():
        asked = ("--split", "loo", "--protocol", protocol, "--systems", "popularity,transitions")
        ran("evaluate", "--store", store.path, *asked, "--out", file)
    said = ran("leaderboard", "--folder", tmp_path)
    digest = json.loads((tmp_path / MERGED).read_text(encoding="utf-8"))["sha256"]
    assert said.endswith(f"Written. sha256 of the results: {digest}\n")
    assert ran("leaderboard", "--folder", tmp_path, "--check").endswith(f"Checked. sha256 of the results: {digest}\n")
    page, markdown = (tmp_path / PAGE).read_text(encoding="utf-8"), (tmp_path / MARKDOWN).read_text(encoding="utf-8")
    for line in json.loads(results["full"].read_text(encoding="utf-8"))["systems"]:
        figure = line["metrics"]["ndcg@10"]
        assert f"{figure['mean']:.4f} ({figure['low']:.4f}–{figure['high']:.4f})" in markdown
        assert f"{figure['mean']:.4f}" in page
    assert "NDCG@10, negatives by popularity" in page


def test_the_command_fails_with_one_and_names_the_file(tmp_path: Path) -> None:
    project(tmp_path, a=result(*clear()))
    ran("leaderboard", "--folder", tmp_path)
    (tmp_path / PAGE).write_text("better", encoding="utf-8")
    assert f"recgraph: {tmp_path / PAGE} is not what the results give" in ran(
        "leaderboard", "--folder", tmp_path, "--check", code=1
    )


def test_results_come_back_from_their_files_byte_for_byte() -> None:
    files = sorted((Path(__file__).resolve().parents[1] / "metrics" / "leaderboard").glob("*.json"))
    if not files:
        pytest.skip("no result is checked in")
    assert [file.name for file in files if text_of(read(file)) != file.read_text(encoding="utf-8")] == []


def test_what_no_result_has_is_not_passed_over(tmp_path: Path) -> None:
    for told in (
        result(*clear(), author="me"),
        result(system("a", 0.1, colour="red")),
        result(system("a", 0.1, curve=[1])),
    ):
        project(tmp_path, bad=told)
        with pytest.raises(
            StoreError,
            match=r"bad\.json is no result of recgraph evaluate \((it has 'author'|a system has 'colour'|curve is "
            r"\[1\])",
        ):
            write(tmp_path)


def test_the_leaderboard_in_the_repository_is_what_its_results_give() -> None:
    root = Path(__file__).resolve().parents[1]
    if not list((root / "metrics" / "leaderboard").glob("*.json")):
        pytest.skip("no result is checked in")
    check(root)
