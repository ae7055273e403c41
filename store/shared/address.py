"""Addresses of shared stores, `quack:host:port`, the token that opens one, and DuckDB's extensions that speak Quack.

Quack is DuckDB's own protocol between two databases, over HTTP. Nothing is downloaded: the extensions are those of the
packages `duckdb-extension-quack` and `duckdb-extension-httpfs` (extra `scale`), and DuckDB checks their signature. What
is sent is unknown here.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

import duckdb

from recgraph.errors import StoreError

SCHEME = "quack:"
PORT = 9494
TOKEN, TOKEN_FILE = "RECGRAPH_STORE_TOKEN", "RECGRAPH_STORE_TOKEN_FILE"
LOCAL = ("127.0.0.1", "localhost", "[::1]")
_EXTENSIONS = ("httpfs", "quack")  # without httpfs the server answers every request with 500
_HOST = r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"


@dataclass(frozen=True)
class Address:
    """Where a store is served."""

    host: str
    port: int = PORT

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether it is this machine's loopback: plain HTTP there, HTTPS everywhere else."""
        return self.host in LOCAL


def is_address(store: str | Path) -> bool:
    """Whether a store is named by where it is served, and not by its file."""
    return str(store).startswith(SCHEME)


def parse_address(text: str) -> Address:
    """StoreError for what is no address."""
    match = re.fullmatch(rf"quack:(?://)?({_HOST})(?::(\d{{1,5}}))?", text)
    port = int(match[3] or PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise StoreError(
            f"'{text[:80]}' is no address of a shared store; write quack:HOST:PORT, as quack:127.0.0.1:9494."
        )
    return Address(match[1], port)


def token_of(address: Address) -> str:
    """The token that the owner of a store gave: from the variable, else from the file that another one names."""
    token, file = os.environ.get(TOKEN, ""), os.environ.get(TOKEN_FILE, "")
    if not token and file:
        try:
            token = Path(file).expanduser().read_text(encoding="ascii").strip()
        except (OSError, UnicodeError) as error:
            raise StoreError(f"The token of {address} cannot be read from {file} ({error}).") from None
    if not re.fullmatch(r"[A-Za-z0-9_-]{16,200}", token):
        raise StoreError(
            f"{address} is opened with a token, and {'this is none' if token else 'there is none'}. `recgraph store serve` "
            f"says in which file it lies: set {TOKEN_FILE} to it, or {TOKEN} to what it holds."
        )
    return token


def extension_files() -> list[Path]:
    """The extensions' files, in the order they are loaded. StoreError where a package is missing or of another DuckDB."""
    files = []
    for name in _EXTENSIONS:
        package = f"duckdb_extension_{name}"
        spec = importlib.util.find_spec(package)
        places = spec.submodule_search_locations if spec else None
        file = Path(places[0] if places else ".", "extensions", f"v{duckdb.__version__}", f"{name}.duckdb_extension")
        if not places or not file.exists():
            what = f"is of another DuckDB than the installed {duckdb.__version__}" if places else "is not installed"
            wanted = f"pip install 'recgraph[scale]' duckdb-extension-{name}=={duckdb.__version__}"
            raise StoreError(f"A shared store needs the package {package.replace('_', '-')}, which {what}: {wanted}")
        files.append(file)
    return files


def load_extensions(connection: duckdb.DuckDBPyConnection) -> None:
    """Before the connection is locked: afterwards it loads nothing."""
    for file in extension_files():
        connection.load_extension(str(file))
