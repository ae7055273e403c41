"""What `--help` prints: read in a terminal of 80 columns, where nothing may be cut off or run over."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from recgraph.cli import main


def all_commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command, groups included."""
    yield words
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, (*words, name))
        else:
            yield (*words, name)


@pytest.mark.parametrize("words", list(all_commands(main)), ids=" ".join)
def test_a_help_fits_80_columns_and_cuts_nothing_off(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*words, "--help"], terminal_width=80).output
    assert max(map(len, shown.splitlines())) <= 80
    assert not [line for line in shown.splitlines() if line.startswith("  ") and line.endswith("...")]


@pytest.mark.parametrize("words", list(all_commands(main)), ids=" ".join)
def test_every_option_that_takes_a_value_says_what_for(words: tuple[str, ...]) -> None:
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    options = [
        one for one in command.params if isinstance(one, click.Option) and not isinstance(one.type, click.Choice)
    ]
    assert [one.name for one in options if not one.help] == []


@pytest.mark.parametrize(
    ("package", "remedy"),
    [("zstandard", "pip install recgraph"), ("ruamel", "pip install 'recgraph[train]'"), ("torch", "'recgraph[local]'")],
)
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    package: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was missing, recgraph[local] was named, which brings neither zstandard nor ruamel."""

    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    monkeypatch.setattr("recgraph.cli.open_store", missing)
    done = CliRunner().invoke(main, ["users"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"'{package}': " in done.stderr
    assert done.stderr.strip().endswith(remedy)
