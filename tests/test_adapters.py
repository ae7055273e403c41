"""Adapter sets: cards, finding, fitting and choosing on folders written by hand; a whole recommender with adapters on
the tiny model; the real model's (marker llm)."""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder, FakeLLM

from recgraph.cli import main
from recgraph.doctor.shop import adapters as of_adapters
from recgraph.errors import ModelMissing
from recgraph.graph.blend import SMALL_WEIGHT
from recgraph.graph.prompts import VERSIONS
from recgraph.graph.recommender import Recommender
from recgraph.graph.summary.grounding import CatalogueWords
from recgraph.graph.summary.summarizers import LLMSummarizer, ProfileSummarizer
from recgraph.settings import Settings, load_settings
from recgraph.store.db import Store
from recgraph.tools.llm.adapter_sets import (
    TASKS,
    AdapterCard,
    Base,
    all_sets,
    check_fit,
    find_set,
    judging,
    plain_name,
    portable,
    served_names,
    summarizes,
)
from recgraph.tools.llm.open import InUse

Q = "model.layers.0.self_attn.q_proj"


def write_tensors(file: Path, shapes: Mapping[str, tuple[int, ...]], fill: int = 0) -> None:
    """A safetensors file of float32, every byte `fill`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes([fill]) * end)


def write_base(folder: Path, width: int = 8, fill: int = 0) -> Base:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    write_tensors(folder / "model.safetensors", {f"{Q}.weight": (width, width)}, fill)
    return Base.of(folder)


def write_adapter(
    folder: Path, base_model: str = "little", width: int = 8, fill: int = 0, card: AdapterCard | None = None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "base_model_name_or_path": base_model,
        "target_modules": ["v_proj", "q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | {"peft_version": "0.21.2", "revision": None}))
    shapes = {f"base_model.model.{Q}.lora_A.weight": (2, width), f"base_model.model.{Q}.lora_B.weight": (width, 2)}
    write_tensors(folder / "adapter_model.safetensors", shapes, fill)
    if card:
        card.write(folder)
    return folder


def card(task: str, base: Base | None = None, **more: Any) -> AdapterCard:
    facts = {
        "preset": "default",
        "settings": {"r": 2, "lr": 1e-4},
        "data": {"source": "simulated"},
        "prompt_version": VERSIONS[task],
    } | more
    return AdapterCard(task, base.name if base else "little", base.fingerprint if base else "", **facts)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder of its own, outside the checkout, whose sets are not looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "recgraph.tools.llm.adapter_sets.__file__", str(tmp_path / "elsewhere" / "tools" / "llm" / "adapter_sets.py")
    )
    return tmp_path


@pytest.fixture
def base(here: Path) -> Base:
    return write_base(here / "models" / "little")


@pytest.fixture
def pair(here: Path, base: Base) -> Path:
    """The set `mine` with next and fit in ./adapters."""
    for number, task in enumerate(("next", "fit")):
        metrics = {"before": {"auc": 0.51}, "after": {"auc": 0.81, "invalid": 0.0}}
        write_adapter(here / "adapters" / "mine" / task, fill=number, card=card(task, base, metrics=metrics))
    return here / "adapters" / "mine"


# ── Cards ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_card_comes_back_as_it_was_written_and_the_same_card_is_the_same_bytes(here: Path, base: Base) -> None:
    written = card("fit", base, data={"fitted_before": None, "source": "simulated"}, created_with={"peft": "0.21"})
    file = written.write(here)
    first = file.read_bytes()
    assert AdapterCard.read(here) == written
    assert written.write(here).read_bytes() == first
    assert json.loads(first)["base"] == {"name": "little", "fingerprint": base.fingerprint}


def test_unknown_keys_of_a_card_are_passed_over_and_missing_ones_are_empty(here: Path) -> None:
    (here / "recgraph.json").write_text('{"task": "next", "colour": "red", "base": {"name": "x", "size": 1}}')
    assert AdapterCard.read(here) == AdapterCard("next", "x")
    assert AdapterCard.read(here / "nowhere") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"task": "fit", "metrics": [1]}', "metrics is a list; it must be a dict"),
        ('{"task": "fit", "base": {"name": 3}}', "base.name is a int; it must be a str"),
        ('{"task": "guess"}', "task is 'guess'; it must be one of recommend, next, fit, summarize"),
        ("[]", "holds a list; it must be a JSON object"),
        ("{", "is not JSON"),
    ],
)
def test_a_card_of_the_wrong_kind_says_where_and_what(here: Path, text: str, told: str) -> None:
    (here / "recgraph.json").write_text(text)
    with pytest.raises(ModelMissing, match=re.escape(told)):
        AdapterCard.read(here)


def test_a_portable_adapter_names_its_base_and_no_place(here: Path) -> None:
    folder = write_adapter(here / "a", base_model="/home/me/.cache/little")
    (folder / "README.md").write_text("base_model: /home/me/.cache/little")
    portable(folder, "/home/me/.cache/little")
    text = (folder / "adapter_config.json").read_text()
    assert json.loads(text)["base_model_name_or_path"] == "little"
    assert json.loads(text)["target_modules"] == ["q_proj", "v_proj"]
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert not any(
        str(here) in file.read_text(errors="replace") or "/home/me" in file.read_text(errors="replace")
        for file in folder.iterdir()
    )
    assert "peft_version" not in text
    portable(folder, "little")
    assert (folder / "adapter_config.json").read_text() == text


def test_a_base_models_plain_name() -> None:
    assert plain_name("HuggingFaceTB/SmolLM2-135M-Instruct") == "SmolLM2-135M-Instruct"
    assert plain_name("/x/hub/models--Org--Name/snapshots/0123abcd") == "Name"


# ── Finding ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_set_is_found_by_name_by_folder_and_by_task(here: Path, pair: Path) -> None:
    for wanted in ("mine", "adapters/mine", "./adapters/mine", str(pair)):
        found = find_set(wanted)
        assert (found.name, list(found.tasks), found.folder.resolve()) == ("mine", ["next", "fit"], pair.resolve())
    for wanted in ("mine/fit", str(pair / "fit")):
        found = find_set(wanted)
        assert (found.name, list(found.tasks)) == ("mine/fit", ["fit"])


def test_a_set_beside_the_store_goes_before_one_in_the_current_folder(here: Path, pair: Path) -> None:
    write_adapter(here / "shop" / "adapters" / "mine" / "next")
    assert find_set("mine", here / "shop" / "x.duckdb").folder == here / "shop" / "adapters" / "mine"
    assert [one.folder for one in all_sets(here / "shop" / "x.duckdb")] == [here / "shop" / "adapters" / "mine"]
    assert find_set("mine", here / "x.duckdb").folder == pair


def test_an_adapter_of_no_told_task_serves_next_and_fit(here: Path) -> None:
    found = find_set(str(write_adapter(here / "both")))
    assert (found.names, list(found.adapters)) == ({"next": "recommend", "fit": "recommend"}, ["recommend"])


def test_an_adapter_for_both_tasks_is_one_adapter_and_one_for_a_task_alone_goes_before_it(here: Path) -> None:
    both = write_adapter(here / "adapters" / "mine" / "recommend", card=card("recommend"))
    assert find_set("mine").names == {"next": "recommend", "fit": "recommend"}
    assert find_set("mine").tasks == {"next": both, "fit": both}
    assert len(set(find_set("mine").weights.values())) == 1
    assert find_set("mine/recommend").names == {"next": "recommend", "fit": "recommend"}
    alone = write_adapter(here / "adapters" / "mine" / "fit", fill=1, card=card("fit"))
    assert find_set("mine").names == {"next": "recommend", "fit": "fit"}
    assert find_set("mine").tasks == {"next": both, "fit": alone}


def test_a_missing_set_lists_the_places_and_what_to_do(here: Path) -> None:
    with pytest.raises(ModelMissing) as caught:
        find_set("lost", here / "shop" / "x.duckdb")
    for words in (
        str(here / "shop" / "adapters" / "lost"),
        str(here / "adapters" / "lost"),
        "recgraph adapters list",
        "--adapter none",
    ):
        assert words in str(caught.value)


def test_other_weights_and_another_scaling_have_another_label(pair: Path) -> None:
    first = find_set("mine").label
    assert re.fullmatch(r"mine-[0-9a-f]{8}", first)
    write_adapter(pair / "fit", fill=7)
    second = find_set("mine").label
    config = json.loads((pair / "fit" / "adapter_config.json").read_text())
    (pair / "fit" / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 32}))
    assert len({first, second, find_set("mine").label}) == 3


@pytest.mark.parametrize(
    ("wanted", "served", "names"),
    [
        ("mine", ["mine-next", "mine-fit", "next"], {"next": "mine-next", "fit": "mine-fit"}),
        ("adapters/mine", ["mine-summarize"], {"summarize": "mine-summarize"}),
        ("mine", ["next", "summarize", "old"], {"next": "next", "summarize": "summarize"}),
        ("adapters/mine/fit", ["mine-next", "mine-fit"], {"fit": "mine-fit"}),
        ("mine-fit", ["mine-next", "mine-fit"], {"fit": "mine-fit"}),
        ("old", ["old", "next"], {"next": "old", "fit": "old"}),
        ("mine", ["mine-recommend"], {"next": "mine-recommend", "fit": "mine-recommend"}),
        (
            "mine",
            ["mine-0123abcd-recommend", "mine-0123abcd-summarize"],
            {
                "next": "mine-0123abcd-recommend",
                "fit": "mine-0123abcd-recommend",
                "summarize": "mine-0123abcd-summarize",
            },
        ),
        ("mine/recommend", ["mine-recommend"], {"next": "mine-recommend", "fit": "mine-recommend"}),
        ("mine", ["recommend", "fit"], {"next": "recommend", "fit": "fit"}),
        ("mine", ["yours-next"], {}),
    ],
)
def test_a_servers_names_for_a_set(wanted: str, served: list[str], names: dict[str, str]) -> None:
    assert served_names(wanted, served) == names


# ── Fitting ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_fingerprint_fits_under_any_name(here: Path, base: Base) -> None:
    shutil.copytree(base.folder, here / "renamed")
    assert check_fit("a", write_adapter(here / "a", card=card("fit", base)), Base.of(here / "renamed")) == ""


def test_another_base_is_refused_with_both_names_and_the_repair(here: Path, base: Base) -> None:
    other = write_base(here / "models" / "large", fill=1)
    for adapter in (
        write_adapter(here / "a", card=card("fit", other)),
        write_adapter(here / "b", base_model="org/large"),
    ):
        with pytest.raises(
            ModelMissing, match=r"trained on large, and this is little.*--llm large.*for little.*--adapter none"
        ):
            check_fit("mine", adapter, base)


def test_the_same_name_on_other_weights_is_told_and_other_shapes_are_refused(here: Path, base: Base) -> None:
    other = write_base(here / "copies" / "little", fill=1)
    adapter = write_adapter(here / "a", card=card("fit", other))
    assert "other weights of little" in check_fit("mine", adapter, base)
    with pytest.raises(ModelMissing, match=r"q_proj.weight is 16 x 16, that of little 8 x 8"):
        check_fit("mine", write_adapter(here / "b", width=16, base_model=""), base)


def test_weights_that_are_missing_or_cut_off_are_told(here: Path, base: Base) -> None:
    adapter = write_adapter(here / "a")
    whole = (adapter / "adapter_model.safetensors").read_bytes()
    for left, told in (
        (whole[:20], "no whole safetensors file"),
        (b"version https://git-lfs", "no whole safetensors file"),
        (b"", "no whole"),
    ):
        (adapter / "adapter_model.safetensors").write_bytes(left)
        with pytest.raises(ModelMissing, match=told):
            check_fit("mine", adapter, base)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelMissing, match=r"has no adapter_model\.safetensors.*dvc pull"):
        check_fit("mine", adapter, base)


# ── Commands ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Path:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    store.close()
    return store.path


def command(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "150"}).invoke(main, ["adapters", *arguments])


@pytest.mark.slow
def test_use_sets_the_default_that_list_marks(
    shop: Path, pair: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECGRAPH_LLM", str(base.folder))
    assert "A run takes none by default" in command("list", "--store", str(shop)).output
    done = command("use", "adapters/mine", "--store", str(shop))
    assert (done.exit_code, "now takes the adapters mine" in done.output) == (0, True)
    with Store.open(shop) as store:
        assert store.meta("adapter") == "mine"
    listed = command("list", "--store", str(shop)).output
    assert re.search(r"\*\s+mine\s+next, fit\s+little\s+simulated \(default\)", listed)
    (check,) = of_adapters(Settings(store=str(shop), llm=str(base.folder)))
    assert (check.ok, check.found.startswith("mine-")) == (True, True)
    assert command("use", "none", "--store", str(shop)).exit_code == 0


def test_use_refuses_what_is_not_there_or_does_not_fit(here: Path, shop: Path, pair: Path) -> None:
    other = write_base(here / "models" / "large", fill=1)
    for name, llm, told in (
        ("lost", other, "There is no adapter set 'lost'"),
        ("mine", other, "trained on little, and this is large"),
    ):
        done = command("use", name, "--store", str(shop), "--llm", str(llm.folder))
        assert (done.exit_code, told in done.output) == (1, True), done.output
    with Store.open(shop) as store:
        assert store.meta("adapter") is None


def test_list_says_what_is_wrong_with_a_set_and_shows_the_others(
    here: Path, pair: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECGRAPH_LLM", str(base.folder))
    (write_adapter(here / "adapters" / "bad" / "fit") / "recgraph.json").write_text("{")
    done = command("list")
    assert done.exit_code == 0
    assert "is not JSON" in done.output
    assert "mine" in done.output


def test_show_prints_settings_and_metrics_before_and_after(pair: Path) -> None:
    shown = command("show", "mine").output
    assert re.search(r"settings.lr\s+0.0001", shown)
    assert re.search(r"auc\s+0.51\s+0.81", shown)
    assert re.search(r"invalid\s+–\s+0", shown)


def test_compare_marks_what_differs(here: Path, pair: Path, base: Base) -> None:
    write_adapter(here / "adapters" / "yours" / "fit", card=card("fit", base, settings={"r": 16, "lr": 1e-4}))
    compared = command("compare", "mine", "yours").output
    assert re.search(r"≠\s+settings.r\s+2\s+16", compared)
    assert re.search(r"\n\s+settings.lr\s+0.0001\s+0.0001", compared)
    assert "fit" in compared


def test_the_doctor_tells_a_missing_default_from_a_missing_choice(shop: Path, base: Base) -> None:
    with Store.open(shop, write=True) as store:
        store.set_meta("adapter", "default")
    (check,) = of_adapters(Settings(store=str(shop), llm=str(base.folder)))
    assert (check.ok, "no adapter set 'default'" in check.found) == (None, True)
    (check,) = of_adapters(Settings(store=str(shop), adapter="lost", llm=str(base.folder)))
    assert check.ok is False
    assert check.mend


# ── In a recommender ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_summary_is_cached_for_the_weights_that_wrote_it() -> None:
    names = {
        LLMSummarizer(FakeLLM(), CatalogueWords({}), wording="fashion", adapter=adapter, weights=weights).name
        for adapter, weights in ((None, ""), ("summarize", "aa"), ("summarize", "bb"))
    }
    assert names == {"fake", "fake+summarize+aa", "fake+summarize+bb"}


@pytest.mark.parametrize(
    ("settings", "device", "parameters", "writer"),
    [
        ({}, "cpu", 135_000_000, ProfileSummarizer),  # a block would cost seconds
        ({}, "cuda", 135_000_000, LLMSummarizer),
        ({}, "", 135_000_000, LLMSummarizer),  # a server has no device
        ({}, "cpu", 7_000_000_000, LLMSummarizer),
        ({"summarizer": "llm"}, "cpu", 135_000_000, LLMSummarizer),
        ({"summarizer": "profile"}, "", 135_000_000, ProfileSummarizer),
    ],
)
@pytest.mark.parametrize("good", [True, False])
def test_who_summarises(
    shop: Path, settings: dict[str, str], device: str, parameters: int, writer: type, good: bool
) -> None:
    """On a GPU the shipped adapter was taken by itself, which copies a line in 46 of 100 summaries."""
    llm = FakeLLM(parameters=parameters)
    llm.adapters = TASKS
    llm.on_cpu = device == "cpu"
    used = InUse("mine-1", {task: task for task in TASKS}, dict.fromkeys(TASKS, "aa"), summarizes=good)
    if not good and not settings and parameters < 1_000_000_000:
        writer = ProfileSummarizer
    chosen = load_settings({}, "/nonexistent", store=str(shop), **settings)
    with Recommender(Store.open(shop), chosen, FakeEncoder(), llm, adapters=used) as recommender:  # type: ignore[arg-type]
        assert type(recommender.summarizer) is writer
        assert recommender.models["adapter"] == "mine-1"


@pytest.mark.parametrize(
    ("metrics", "good"),
    [({"after": {"accepted": 0.95, "copies": 0.02}, "before": {"accepted": 0.5}}, True), ({"accepted": 0.9}, True)]
    + [(metrics, False) for metrics in ({"after": {"accepted": 0.58}, "before": {"accepted": 0.9}}, {}, {"after": 1})],
)
def test_an_adapters_own_exam_says_whether_its_summaries_can_be_used(
    tmp_path: Path, metrics: dict[str, object], good: bool
) -> None:
    assert not summarizes(tmp_path)  # no card
    AdapterCard("summarize", "small", metrics=metrics).write(tmp_path)
    assert summarizes(tmp_path) is good


@pytest.mark.parametrize(
    ("worth", "read"),
    [
        ({"odds": 0.5, "shop": "simulated", "ndcg@10": 0.1}, (0.5, "simulated")),
        ({"odds": -1, "shop": "A"}, None),
        ({"odds": float("nan"), "shop": "A"}, None),
        ({"odds": "0.5", "shop": "A"}, None),
        ({"odds": 0.5, "shop": ""}, None),
        (0.5, None),
    ],
)
def test_an_adapters_own_exam_says_what_its_judgement_is_worth(
    tmp_path: Path, worth: object, read: tuple[float, str] | None
) -> None:
    assert judging(tmp_path) is None  # no card
    AdapterCard("recommend", "small", metrics={"worth": worth}).write(tmp_path)
    assert judging(tmp_path) == read


@pytest.mark.parametrize(
    ("shop_is", "given", "wanted"),
    [
        ("Simulated shop (seed 7)", None, (SMALL_WEIGHT, 0.5)),
        ("Simulated shop (seed 7)", 0.2, (0.2, None)),
        ("", None, (SMALL_WEIGHT, None)),
    ],
)
def test_judgements_count_what_they_were_measured_to_be_worth_in_that_shop_alone(
    shop: Path, shop_is: str, given: float | None, wanted: tuple[float, float | None]
) -> None:
    used = InUse("mine-1", {task: task for task in TASKS}, dict.fromkeys(TASKS, "aa"), judging=(0.5, "simulated"))
    chosen = load_settings({}, "/nonexistent", store=str(shop), rerank_weight=given)
    with Store.open(shop, write=True) as store:
        store.set_meta("simulated", shop_is)
    llm = FakeLLM(parameters=135_000_000)
    llm.adapters = TASKS
    with Recommender(Store.open(shop), chosen, FakeEncoder(), llm, adapters=used) as recommender:  # type: ignore[arg-type]
        told = recommender.nodes.settings
        assert (told.rerank_weight, told.odds) == wanted


def test_the_shipped_adapter_for_summaries_is_not_taken_by_itself() -> None:
    assert not summarizes(Path(__file__).parents[1] / "adapters" / "default" / "summarize")


@pytest.fixture
def tiny(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model, the set `tuned` for it in ./adapters, and an encoder that costs nothing."""
    local = pytest.importorskip("test_llm_local")
    monkeypatch.setattr("recgraph.graph.recommender.encoder_of", lambda store, name: FakeEncoder())
    folder: Path = local.write_tiny(here / "tiny")
    for seed, task in enumerate(TASKS):
        portable(local.write_adapter(folder, here / "adapters" / "tuned" / task, seed), "tiny")
    return folder


@pytest.mark.slow
def test_a_set_that_was_asked_for_answers_and_is_named(shop: Path, tiny: Path) -> None:
    with Recommender.open(shop, llm=str(tiny), adapter="tuned") as recommender:
        assert recommender.models["adapter"] == find_set("tuned").label
        assert recommender.llm is not None
        assert recommender.llm.adapters == TASKS
        nodes = recommender._nodes(recommender.settings)
        asked = nodes.settings
        assert (asked.next_adapter, asked.fit_adapter, asked.rerank_weight, asked.free_title) == (
            "next",
            "fit",
            0.1,
            False,
        )
        assert recommender._told(replace(recommender.settings, mode="paper")).free_title
        assert not any(note.startswith("adapter") for note in recommender.recommend("U1").degraded)


@pytest.mark.slow
def test_the_stores_default_is_taken_unless_none_is_asked_for(shop: Path, tiny: Path) -> None:
    with Store.open(shop, write=True) as store:
        store.set_meta("adapter", "tuned")
    with Recommender.open(shop, llm=str(tiny)) as recommender:
        assert recommender.models["adapter"].startswith("tuned-")
    with Recommender.open(shop, llm=str(tiny), adapter="none") as recommender:
        assert recommender.models["adapter"] == ""
        assert recommender._nodes(recommender.settings).settings.fit_adapter is None


@pytest.mark.slow
@pytest.mark.parametrize("missing", [True, False])
def test_a_default_that_cannot_be_used_is_said_once_and_one_asked_for_is_an_error(
    here: Path, shop: Path, tiny: Path, missing: bool
) -> None:
    if not missing:
        write_adapter(here / "adapters" / "default" / "fit", base_model="SmolLM2-135M-Instruct")
    with Store.open(shop, write=True) as store:
        store.set_meta("adapter", "default")
    told = "no adapter set 'default'" if missing else "trained on SmolLM2-135M-Instruct, and this is tiny"
    with Recommender.open(shop, llm=str(tiny)) as recommender:
        notes = [note for note in recommender.recommend("U1").degraded if note.startswith("adapter")]
        assert recommender.models["adapter"] == ""
    assert [told in note for note in notes] == [True]
    with pytest.raises(ModelMissing, match=told):
        Recommender.open(shop, llm=str(tiny), adapter="default")


def test_without_a_model_there_is_no_word_about_adapters(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recgraph.graph.recommender.encoder_of", lambda store, name: FakeEncoder())
    with Store.open(shop, write=True) as store:
        store.set_meta("adapter", "default")
    with Recommender.open(shop, llm="none") as recommender:
        assert recommender.recommend("U1").degraded == ()


@pytest.mark.llm
def test_the_shipped_adapters_fit_the_packaged_model_and_are_small() -> None:
    from recgraph.tools.llm.places import find_llm

    shipped = Path(__file__).resolve().parents[1] / "adapters" / "default"
    if not shipped.is_dir():
        pytest.skip("no adapters are shipped yet")
    one, base = find_set(str(shipped)), Base.of(find_llm())
    assert (list(one.adapters), list(one.tasks)) == (["recommend", "summarize"], list(TASKS))
    assert list(one.cards) == ["recommend", "summarize"]
    assert one.bytes <= 12_000_000
    assert [check_fit(task, folder, base) for task, folder in one.tasks.items()] == [""] * 3
    for folder in one.tasks.values():
        assert (
            plain_name(told := json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])
            == told
        )
        assert not (folder / "README.md").exists()


@pytest.mark.llm
def test_the_real_model_answers_with_a_set_and_keeps_its_prefixes_apart(here: Path) -> None:
    local = pytest.importorskip("test_llm_local")
    from recgraph.tools.llm.open import open_adapted
    from recgraph.tools.llm.places import find_llm

    for seed, task in enumerate(("next", "fit")):
        portable(local.write_adapter(find_llm(), here / "adapters" / "random" / task, seed), "SmolLM2-135M-Instruct")
    llm, used = open_adapted("random", None, here / "x.duckdb")
    assert used.names == {"next": "next", "fit": "fit"}
    prompts = local.candidates(3)
    first = {task: llm.score(prompts, adapter=task) for task in (None, "next", "fit")}
    again = {task: llm.score(prompts, adapter=task) for task in (None, "next", "fit")}
    assert len({found[0][0] for found, _ in first.values()}) == 3
    for task, (found, usage) in again.items():
        assert usage.cached > first[task][1].cached
        assert [pytest.approx(pair, abs=2e-2) for pair in found] == first[task][0]
