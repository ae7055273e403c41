"""API keys: kept as hashes, bound to scopes and users, revoked while a server runs."""

import json
import stat
from pathlib import Path

import pytest

from recgraph.errors import SettingsError
from recgraph.http.keys import Keys


def test_a_key_opens_its_scopes_and_its_user_alone(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "shop.keys.json")
    token = keys.add("web", ["recommend", "events"], "U1")
    grant = keys.grant(token)
    assert grant is not None
    assert (grant.may("recommend"), grant.may("erase")) == (True, False)
    assert (grant.sees("U1"), grant.sees("U2")) == (True, False)


def test_the_file_holds_the_hash_and_not_the_token_and_is_its_owners(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "shop.keys.json")
    token = keys.add("web", ["recommend"])
    assert token not in keys.path.read_text()
    assert token.removeprefix("rg_") not in keys.path.read_text()
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600


def test_wrong_cut_and_lengthened_tokens_open_nothing(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "shop.keys.json")
    token = keys.add("web", ["recommend"])
    for wrong in ("", token[:-1], token + "x", token.upper(), "\udcff", token + "x" * 10_000):
        assert keys.grant(wrong) is None


def test_without_a_file_all_is_allowed_and_with_a_lost_one_nothing(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "shop.keys.json")
    assert not keys.required
    assert keys.grant("") is not None
    keys.add("web", ["recommend"])
    keys.all()
    keys.path.unlink()
    assert keys.required
    assert keys.grant("") is None


def test_a_key_that_another_process_revokes_opens_nothing_at_once(tmp_path: Path) -> None:
    serving, command = Keys(tmp_path / "shop.keys.json"), Keys(tmp_path / "shop.keys.json")
    token = command.add("web", ["recommend"])
    assert serving.grant(token) is not None
    command.revoke("web")
    assert serving.grant(token) is None


@pytest.mark.parametrize("text", ["", "[]", '{"keys": [{"name": "x"}]}', '{"keys": 3}'])
def test_a_file_that_is_no_file_of_keys_is_said_and_opens_nothing(tmp_path: Path, text: str) -> None:
    keys = Keys(tmp_path / "shop.keys.json")
    keys.path.write_text(text)
    with pytest.raises(SettingsError, match="is no file of keys"):
        keys.grant("x")


def test_names_and_scopes_are_checked(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "shop.keys.json")
    with pytest.raises(SettingsError, match="'admin' is no scope; there are recommend, events, catalog, erase"):
        keys.add("web", ["admin"])
    with pytest.raises(SettingsError, match="opens nothing"):
        keys.add("web", [])
    keys.add("web", ["recommend"])
    with pytest.raises(SettingsError, match="There is a key 'web' already"):
        keys.add("web", ["recommend"])
    with pytest.raises(SettingsError, match="There is no key 'shop'"):
        keys.revoke("shop")
    assert [row["name"] for row in json.loads(keys.path.read_text())["keys"]] == ["web"]
