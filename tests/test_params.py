"""params.yaml as typed settings: what fits is taken, and what does not is named by its key with what it must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from recgraph.errors import SettingsError
from recgraph.train.evaluate import EvaluateParams
from recgraph.train.examples.stage import ExamplesParams
from recgraph.train.lora.job import SftParams
from recgraph.train.lora.training import LoraSettings
from recgraph.train.memory import MemoryParams
from recgraph.train.networks.core import CoreSettings
from recgraph.train.networks.text import TextSettings
from recgraph.train.params import block, load_params, settings_of, text
from recgraph.train.pipeline import STAGES
from recgraph.train.prepare import PrepareParams
from recgraph.train.publish import PublishParams
from recgraph.train.ranking import RankerSettings
from recgraph.train.shop.parts import PartsParams
from recgraph.train.shop.stage import ShopParams
from recgraph.train.summarize import SummarizeParams
from recgraph.train.title_embeddings import TitleParams

PARAMS = load_params(Path(__file__).resolve().parent.parent)
KINDS: Mapping[str, type[Any]] = {
    "shop": ShopParams,
    "prepare": PrepareParams,
    "summarize": SummarizeParams,
    "id_embeddings": CoreSettings,
    "title_embeddings": TitleParams,
    "memory": MemoryParams,
    "textformer": TextSettings,
    "ranking": RankerSettings,
    "examples": ExamplesParams,
    "sft": SftParams,
    "evaluate": EvaluateParams,
    "publish": PublishParams,
    "parts": PartsParams,
}


@dataclass(frozen=True)
class Inner:
    width: int = 1


@dataclass(frozen=True)
class Some:
    count: int
    share: float = 0.5
    mode: Literal["fast", "slow"] = "fast"
    ks: tuple[int, ...] = ()
    most: int | None = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise SettingsError(f"count is {self.count}; it must be at least 0.")


@pytest.mark.parametrize("stage", STAGES)
def test_each_block_of_the_repository_is_its_stages_dataclass(stage: str) -> None:
    assert block(PARAMS, stage, KINDS[stage]) is not None


@pytest.mark.parametrize("preset", PARAMS["presets"])
def test_each_preset_is_an_adapters_settings(preset: str) -> None:
    for task, values in PARAMS["presets"][preset].items():
        assert settings_of(LoraSettings, values, f"presets.{preset}.{task}").rank > 0


def test_values_come_as_their_fields_say() -> None:
    found = settings_of(Some, {"count": 2, "share": 1, "ks": [1, 5], "most": 3, "inner": {"width": 7}}, "some")
    assert found == Some(2, 1.0, ks=(1, 5), most=3, inner=Inner(7))
    assert isinstance(found.share, float)
    assert settings_of(Some, {"count": 2, "most": None}, "some") == Some(2)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, r"does not set some\.count.*git checkout"),
        ({"count": 1, "counts": 2}, r"some\.counts is no parameter; known are count, share"),
        ({"count": "1"}, r"some\.count is '1' in params.yaml; it must be a whole number"),
        ({"count": True}, r"some\.count is True .* a whole number"),
        ({"count": 1.5}, r"some\.count is 1.5 .* a whole number"),
        ({"count": 1, "share": "half"}, r"some\.share is 'half' .* a number"),
        ({"count": 1, "mode": "some"}, r"some\.mode is 'some' in params.yaml; it must be one of fast, slow"),
        ({"count": 1, "ks": 5}, r"some\.ks is 5 .* a list"),
        ({"count": 1, "ks": [1, "x"]}, r"some\.ks\[1\] is 'x' .* a whole number"),
        ({"count": 1, "inner": {"widths": 3}}, r"some\.inner\.widths is no parameter"),
        ({"count": 1, "inner": 3}, r"some\.inner is 3 .* a block"),
        ({"count": -1}, r"^some\.count is -1; it must be at least 0"),
    ],
)
def test_what_does_not_fit_is_named_by_its_key(values: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        settings_of(Some, values, "some")


def test_a_missing_block_and_a_wrong_choice_at_the_top_are_named() -> None:
    with pytest.raises(SettingsError, match=r"no block `some:`.*git checkout"):
        block({"some": None}, "some", Some)
    with pytest.raises(SettingsError, match=r"split is .both. in params\.yaml; it must be one of time, loo"):
        text({"split": "both"}, "split", "time", "loo")
    with pytest.raises(SettingsError, match="does not set data"):
        text({}, "data")


def test_the_encoders_of_titles_draw_with_the_stages_seed_unless_they_have_their_own() -> None:
    own = {
        "encoder": "lstm",
        "dtype": "float32",
        "positives": "click",
        "cases": 0,
        "seed": 3,
        "threads": 1,
        "finetuned": {"seed": 5},
    }
    found = TitleParams.of({"title_embeddings": own})
    assert (found.lstm.seed, found.finetuned.seed) == (3, 5)
    assert found.trained == found.lstm
