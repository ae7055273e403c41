"""Settings: the order of look-up, the values that are refused, and that docs/settings.md tells all of them."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from recgraph.errors import SettingsError
from recgraph.settings import Settings, load_settings

TABLE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"


def test_the_defaults_need_nothing_around_them(tmp_path: Path) -> None:
    assert load_settings({}, tmp_path) == Settings()


def test_an_argument_goes_before_the_environment_the_file_and_the_default(tmp_path: Path) -> None:
    (tmp_path / "recgraph.toml").write_text("k = 3\nblock = 3\nstore = 'file.duckdb'\n", encoding="utf-8")
    environ = {"RECGRAPH_K": "4", "RECGRAPH_BLOCK": "4"}
    settings = load_settings(environ, tmp_path, k=5)
    assert (settings.k, settings.block, settings.store, settings.merge) == (5, 4, "file.duckdb", 4)


def test_none_means_not_given(tmp_path: Path) -> None:
    assert load_settings({"RECGRAPH_K": "4"}, tmp_path, k=None).k == 4


def test_numbers_in_the_environment_become_numbers(tmp_path: Path) -> None:
    settings = load_settings(
        {"RECGRAPH_DEADLINE": "2.5", "RECGRAPH_RERANK_WEIGHT": "0.25", "RECGRAPH_MIXUP": "2"}, tmp_path
    )
    assert (settings.deadline, settings.rerank_weight, settings.mixup) == (2.5, 0.25, 2)


def test_a_value_of_the_wrong_kind_names_itself_and_where_it_stands(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RECGRAPH_K sets k to 'ten', which is not a number"):
        load_settings({"RECGRAPH_K": "ten"}, tmp_path)


def test_a_name_that_is_no_setting_is_refused_in_the_file_and_in_the_call(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the call sets 'colour', which is no setting"):
        load_settings({}, tmp_path, colour="red")
    (tmp_path / "recgraph.toml").write_text("colour = 'red'\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"recgraph\.toml sets 'colour'"):
        load_settings({}, tmp_path)


def test_other_variables_of_the_environment_do_not_disturb(tmp_path: Path) -> None:
    assert load_settings({"RECGRAPH_DATA": "/data", "STORE": "x"}, tmp_path) == Settings()


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "recgraph.toml").write_text("k = = 3\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"recgraph\.toml cannot be read as TOML"):
        load_settings({}, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("mode", "fuse", "mode is 'fuse'; it must be one of fused, paper"),
        ("paradigm", "flat", "must be one of recurrent, hierarchical"),
        ("summarizer", "gpt", "must be one of auto, profile, llm"),
        ("constrain", "yes", "must be one of shown, catalogue, off"),
        ("wording", "cars", "must be one of fashion, general"),
        ("k", 0, "k is 0; it must be at least 1"),
        ("merge", 1, "merge is 1; it must be at least 2"),
        ("deadline", 0.0, "must be a positive number of seconds"),
        ("rerank_weight", 1.5, "must lie between 0 and 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_is_allowed(name: str, value: object, told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        load_settings({}, "/nowhere", **{name: value})


@pytest.mark.parametrize(
    ("given", "asks"),
    [
        ({}, False),
        ({"adapter": "none", "rerank_weight": 0.0}, False),
        ({"llm": "default"}, True),
        ({"llm_url": "http://127.0.0.1:8000/v1"}, True),
        ({"adapter": "default"}, True),
        ({"summarizer": "llm"}, True),
        ({"mode": "paper"}, True),
        ({"rerank_weight": 0.1}, True),
        ({"llm": "none", "llm_url": "http://127.0.0.1:8000/v1", "adapter": "default"}, False),
    ],
)
def test_a_language_model_is_asked_only_where_a_setting_asks_for_one(given: dict[str, Any], asks: bool) -> None:
    assert Settings(**given).asks_llm is asks


def test_a_key_is_never_printed() -> None:
    assert "hunter2" not in repr(Settings(llm_api_key="hunter2"))
    assert "llm_api_key=***" in repr(Settings(llm_api_key="hunter2"))


def test_the_cache_lies_in_the_home_folder_unless_told(tmp_path: Path) -> None:
    assert Settings().cache_folder == Path.home() / ".cache" / "recgraph"
    assert Settings(cache=str(tmp_path)).cache_folder == tmp_path


def test_the_documentation_lists_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", TABLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    told = {name: default.strip().strip("`") for name, default in rows}
    for field in fields(Settings):
        default = "" if field.default is None else str(field.default)
        assert told.get(field.name) == default, (
            f"docs/settings.md has {field.name} = {told.get(field.name)}, it is {default!r}"
        )


def test_a_folders_file_cannot_have_a_key_from_elsewhere_sent_to_its_address(tmp_path: Path) -> None:
    (tmp_path / "recgraph.toml").write_text('llm_url = "https://elsewhere.example/v1"\n')
    key = {"RECGRAPH_LLM_API_KEY": "sk-secret"}
    with pytest.raises(SettingsError, match=r"is not sent to an address that a folder names") as caught:
        load_settings(key, tmp_path)
    assert "sk-secret" not in str(caught.value)
    with pytest.raises(SettingsError, match="RECGRAPH_LLM_URL"):
        load_settings({}, tmp_path, llm_api_key="sk-secret")
    assert load_settings({}, tmp_path).llm_url
    own = {**key, "RECGRAPH_LLM_URL": "https://elsewhere.example/v1"}
    assert load_settings(own, tmp_path).llm_api_key == "sk-secret"
    assert load_settings(key, tmp_path, llm_url="http://127.0.0.1/v1").llm_url == "http://127.0.0.1/v1"
    (tmp_path / "recgraph.toml").write_text('llm_url = "https://a.example/v1"\nllm_api_key = "of-the-file"\n')
    assert load_settings({}, tmp_path).llm_api_key == "of-the-file"
