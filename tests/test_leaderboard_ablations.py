"""Ablations on the leaderboard: what is told of the variants, and that `--check` finds a changed file of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

# What the boards are tested with: the same project folder, page and odd names.
from test_leaderboard import ODD, Tags, clear, project, result, texts

from recgraph.errors import StoreError
from recgraph.evaluation.ablate import NAMES
from recgraph.evaluation.leaderboard.ablations import HEADLINES, AblationBoard
from recgraph.evaluation.leaderboard.write import MARKDOWN, MERGED, PAGE, check, write
from recgraph.evaluation.result_files import ablation_of, read_ablation, text_of

FACTS = {
    "dataset": "shop",
    "split": "time",
    "cases": 60,
    "users": 54,
    "sample": 60,
    "seed": 7,
    "data_hash": "8cf14db01a808aa9",
    "revision": "a9fac33+",
    "machine": "EPYC, 2 CPUs",
    "date": "2026-11-21",
    "command": "recgraph ablate table3 --cases 60",
    "seconds": 2029.9,
}


def variant(name: str, ndcg: float, by: float | None = None, p_holm: float = 0.001, **told: Any) -> dict[str, Any]:
    """`by` is the difference from the first, ± .01."""
    made: dict[str, Any] = {
        "name": name,
        "settings": {"mode": "paper"},
        "metrics": {
            "recall@10": {"mean": 0.3, "low": 0.2, "high": 0.4},
            "ndcg@10": {"mean": ndcg, "low": ndcg - 0.05, "high": ndcg + 0.05},
            "mrr": {"mean": 0.1, "low": 0.05, "high": 0.15},
        },
        "invalid": 0.125,
        "degraded": 0.0,
        "tokens": {"prompt": 1479.6, "completion": 26.3, "cached": 183.2},
        "ms": {"median": 3863.7, "p95": 5386.5},
    }
    if by is not None:
        compared = {"best": "ours", "difference": by, "low": by - 0.01, "high": by + 0.01}
        made["against"] = {**compared, "p": p_holm, "p_holm": p_holm}
    return {**made, **told}


def ablation(*variants: dict[str, Any], name: str = "table3", **told: Any) -> dict[str, Any]:
    """As `recgraph ablate` writes it."""
    return {"ablation": name, **FACTS, "variants": list(variants), **told}


OURS, WORSE, NEAR = variant("ours", 0.2338), variant("w/o ids", 0.1863, -0.0475), variant("w/o text", 0.24, 0.0062, 0.9)


def ablated(folder: Path, **told: dict[str, Any]) -> Path:
    """A project with a board and these ablations."""
    place = project(folder, one=result(*clear())) / "metrics" / "ablations"
    place.mkdir(exist_ok=True)
    for name, one in told.items():
        (place / f"{name}.json").write_text(json.dumps(one), encoding="utf-8")
    return folder


def lead(*variants: dict[str, Any]) -> str:
    return AblationBoard("table3", ablation_of(ablation(*variants))).lead.replace("\u00a0", " ")


def test_a_lead_tells_which_variants_are_separable_from_the_first_and_which_are_not() -> None:
    ours = "ours: NDCG@10 0.2338 (0.1838–0.2838)."
    assert lead(OURS, WORSE, NEAR) == (
        f"{ours} Separable from it (Holm p < .05): w/o ids (−0.0475). Not separable: w/o text."
    )
    assert lead(OURS, WORSE).endswith("w/o ids (−0.0475). Not separable: none.")
    assert lead(OURS, NEAR) == f"{ours} No other variant is separable from it (Holm p < .05)."
    chance = variant("w/o ids", 0.1863, -0.0475, p_holm=0.05)  # its interval excludes zero, Holm's p is at the level
    assert lead(OURS, chance).endswith("No other variant is separable from it (Holm p < .05).")
    assert lead(OURS) == "ours is alone here: NDCG@10 0.2338 (0.1838–0.2838)."


def test_every_ablation_is_shown_with_its_headline_figures_costs_and_origin(tmp_path: Path) -> None:
    page, markdown = texts(ablated(tmp_path, table3=ablation(OURS, WORSE, NEAR)))
    assert markdown.index("## beauty") < markdown.index("## Ablations\n") < markdown.index("F table 3")
    assert (
        "| w/o ids | 0.1863 (0.1363–0.2363) | 0.3000 (0.2000–0.4000) | 0.1000 (0.0500–0.1500) | "
        "−0.0475 (−0.0575 to −0.0375), p = .001 | 12.5% | 0.0% | 1,480 | 26 | 3,864 | 5,386 |"
    ) in markdown
    assert "+0.0062 (−0.0038 to +0.0162), p = .900, not separable |" in markdown
    section = page.split('<section id="ablations">')[1]
    assert "<h3>What each part adds (F table 3)</h3>" in section
    for text in ("0.1863<small>0.1363–0.2363</small>", ">12.5%<", ">1,480<", ">5,386<", "<small>not separable</small>"):
        assert text in section
    for name, text in {
        "data": "shop, 8cf14db01a808aa9 (hash of what variants are given and asked)",
        "split": "time: one cut for everybody; what comes after is predicted",
        "cases": "60, a sample of at most 60 drawn with a fixed seed",
        "users": "54",
        "seed": "7",
        "code": "a9fac33 with changes that are in no commit",
        "machine": "EPYC, 2 CPUs",
        "date": "2026-11-21",
        "seconds": "2,029.9",
        "command": "recgraph ablate table3 --cases 60",
    }.items():
        assert f"- {name}: {f'` {text} `' if name == 'command' else text}\n" in markdown
        assert f"<dt>{name}</dt>\n<dd>{text}</dd>" in section
    assert "<dt>w/o ids</dt>\n<dd>mode paper</dd>" in section
    assert '<a href="#ablations">Ablations</a>: 1' in page


def test_without_ablations_nothing_is_said_of_them(tmp_path: Path) -> None:
    for text in texts(project(tmp_path, one=result(*clear()))):
        assert "blation" not in text


def test_ablations_are_shown_in_the_order_of_the_papers_and_every_one_has_a_headline(tmp_path: Path) -> None:
    assert tuple(HEADLINES) == NAMES
    told = {name: ablation(OURS, name=name) for name in ("own", *reversed(NAMES))}
    _, markdown = texts(ablated(tmp_path, **told, **{"mixup-large": told["mixup"]}))
    found = re.findall(r"^### (.*)$", markdown.split("## Ablations")[1], re.MULTILINE)
    wanted = [*HEADLINES.values(), "own"]
    assert found == [*wanted[:2], f"{HEADLINES['mixup']}: large", *wanted[2:]]


def test_the_history_is_drawn_as_a_curve_a_paradigm_with_intervals(tmp_path: Path) -> None:
    sizes = [
        variant(f"{paradigm}, {n} items", 0.2 + n / 100, settings={"paradigm": paradigm, "recent": n})
        for paradigm in ("recurrent", "hierarchical")
        for n in (3, 0, 1)
    ]
    page, _ = texts(ablated(tmp_path, history=ablation(*sizes, name="history"), table3=ablation(OURS, WORSE)))
    (plot,) = (
        ElementTree.fromstring(text)
        for text in re.findall(r"<svg .*?</svg>", page.split('id="ablations"')[1], re.DOTALL)
    )
    assert plot[1].text == "recurrent 0.2300 (0.1800–0.2800) at 3; hierarchical 0.2300 (0.1800–0.2800) at 3"
    curves = [one.get("points", "").split() for one in plot.iter("polyline")]
    assert [len(points) for points in curves] == [3, 3]
    for points in curves:
        across, up = zip(*(map(float, point.split(",")) for point in points), strict=True)
        assert across == tuple(sorted(across))
        assert (across[1] - across[0]) * 2 == pytest.approx(across[2] - across[1], abs=0.3)  # 0, 1 and 3 items
        assert up[0] > up[1] > up[2]
    assert len([one for one in plot.iter("line") if one.get("class") == "spread"]) == 6


def test_names_of_variants_cannot_break_out_of_the_page_or_the_table(tmp_path: Path) -> None:
    odd = variant(ODD, 0.2, settings={ODD: ODD, "paradigm": ODD, "recent": 1})
    told = ablation(odd, {**odd, "settings": {**odd["settings"], "recent": 2}}, name=ODD, command=f"{ODD} ``")
    page, markdown = texts(ablated(tmp_path, one={**told, "dataset": ODD, "split": ODD, "machine": ODD}))
    tags = Tags(page)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in tags.tags}
    assert page.count("</svg>") == sum(tag == "svg" for tag, _ in tags.tags)
    assert tags.open == []
    rows = [line for line in markdown.split("## Ablations")[1].splitlines() if line.startswith("|")]
    assert len({len(re.split(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "<script" not in re.sub(r"^- command:.*$|\\<", "", markdown, flags=re.MULTILINE)


def test_the_check_finds_an_ablation_that_was_changed_where_no_table_shows_it(tmp_path: Path) -> None:
    _, digest = write(ablated(tmp_path, table3=ablation(OURS, WORSE)))
    assert check(tmp_path)[1] == digest
    merged = json.loads((tmp_path / MERGED).read_text(encoding="utf-8"))
    assert merged["results"]["ablations/table3"] == ablation(OURS, WORSE)
    cached = {**WORSE, "tokens": {**WORSE["tokens"], "cached": 1.0}}
    ablated(tmp_path, table3=ablation(OURS, cached))
    with pytest.raises(StoreError, match=rf"\(sha256 {digest}, but the results have [0-9a-f]{{64}}\)") as raised:
        check(tmp_path)
    for name in (MARKDOWN, PAGE, MERGED):
        assert f"{tmp_path / name} is not what the results give" in str(raised.value)
    (tmp_path / "metrics" / "ablations" / "table3.json").unlink()
    with pytest.raises(StoreError, match="is not what the results give"):
        check(tmp_path)


def test_a_file_that_is_no_ablation_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    wrong = {
        "it has no variant": ablation(),
        "it has 'author', which no result of this version has": ablation(OURS, author="me"),
        "a variant has 'colour'": ablation({**OURS, "colour": "red"}),
        "'fast' is no number": ablation({**OURS, "ms": {"median": "fast", "p95": 1}}),
        "without 'users'": {name: value for name, value in ablation(OURS).items() if name != "users"},
        "without 'degraded'": ablation({name: value for name, value in OURS.items() if name != "degraded"}),
        "p95": ablation({**OURS, "ms": {"median": 1.0}}),
        "without a number as 'invalid'": ablation({**OURS, "invalid": None}),
    }
    for what, told in wrong.items():
        with pytest.raises(
            StoreError, match=r"bad\.json is no result of recgraph ablate .*: recgraph ablate … --out .*bad\.json$"
        ) as raised:
            write(ablated(tmp_path, bad=told))
        assert what in str(raised.value)
    assert not (tmp_path / PAGE).exists()


def test_ablations_come_back_from_their_files_byte_for_byte() -> None:
    files = sorted((Path(__file__).resolve().parents[1] / "metrics" / "ablations").glob("*.json"))
    if not files:
        pytest.skip("no ablation is checked in")
    assert [file.name for file in files if text_of(read_ablation(file)) != file.read_text(encoding="utf-8")] == []
