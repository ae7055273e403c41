"""The exceptions recgraph raises on purpose, shaped by what the caller can do about them.

Every message names the value that is wrong and, where one exists, the command that repairs it. The library raises; only
a door (`recgraph.cli`) turns an exception into a line and an exit code.
"""

from __future__ import annotations


class RecgraphError(Exception):
    """Base of all errors a user can act on. `str(error)` is one plain sentence or two, ready to print: values that
    stand in it may come from anywhere, so nothing in it acts on a terminal or a log."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"


class StoreError(RecgraphError):
    """The store cannot be used: missing, locked by another process, of a newer schema, damaged."""


class StoreBusy(StoreError):
    """Another process holds the store's write lock; trying again later may work."""


class StoreReadOnly(StoreError):
    """The store or its disk cannot be written; reading works."""


class UnknownRun(StoreError):
    """The run id is not in the run log."""


class IngestError(RecgraphError):
    """Nothing could be read from the given files. The store is as it was before."""


class UnknownUser(RecgraphError):
    """The user id is in no event of the store."""


class EmptyStore(RecgraphError):
    """The store has no items (or none before the as-of time), so nothing can be recommended."""


class SettingsError(RecgraphError):
    """A setting, option or environment variable has a value that cannot be used."""


class ModelMissing(RecgraphError):
    """No model was found where one is needed; the message lists the places that were searched."""


class LLMError(RecgraphError):
    """The LLM did not do its work. Callers may fall back; see the subclasses for what went wrong."""


class LLMRefused(LLMError):
    """The LLM server refuses the key, or does not serve the asked-for model or adapter: a setting has to be mended."""


class LLMUnavailable(LLMError):
    """The LLM server cannot be reached or answers with a server error; worth one more try."""


class LLMTimeout(LLMError):
    """The deadline passed before the LLM answered; not worth another try within this request."""


class LLMGarbled(LLMError):
    """The LLM answered, but not in the asked-for form (missing log-probabilities, not the schema, empty)."""
