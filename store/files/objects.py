"""Files and folders in object storage, by the paths of fsspec (`s3://bucket/shop`, `gs://…`, `memory://…`): brought
here to be read, sent when they are made.

A store of objects replaces one of them at once but no two, so a folder's files are sent under names that hold their
content, and CURRENT, sent last, says which belong together: who reads meanwhile has the ones of before or the new ones.
One program writes a folder at a time. A folder without CURRENT, copied there in another way, is read by the files' own
names. What is in the files is unknown here.

No error shows more of an address than its place, nor what a driver said: both may hold a key.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recgraph.errors import StoreError

CURRENT = "current.json"
_FAR = re.compile(r"^[a-z][a-z0-9+.-]*(?:::|://)", re.IGNORECASE)
_TRIES = 3  # a writer may take away the files of before while they are read
# What drivers raise that is no OSError, by the modules that are loaded where one is in use.
_OF_DRIVERS = (
    *(("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"), ("gcsfs.retry", "HttpError")),
    *(("google.auth.exceptions", "GoogleAuthError"), ("azure.core.exceptions", "AzureError")),
)


def is_far(path: str | Path) -> bool:
    """Whether it is fsspec's to open; `file://` is this machine's own."""
    return isinstance(path, str) and bool(_FAR.match(path)) and not path.lower().startswith("file://")


def local(path: str | Path) -> Path:
    """A path of this machine, `file://` or plain."""
    text = str(path)
    return Path(text[len("file://") :]) if text.lower().startswith("file://") else Path(path)


def shown(path: str | Path) -> str:
    """A path to be named in messages: without a user, a password and parameters."""
    return re.sub(r"(//)[^/@]*@", r"\1", str(path).partition("?")[0]) if is_far(path) else str(path)


@contextmanager
def fetched(folder: str, names: Sequence[str]) -> Iterator[Path]:
    """These files of a folder, in a folder here that is gone after the block. StoreError where one is missing or is not
    what CURRENT says."""
    system, root = _opened(folder)
    with tempfile.TemporaryDirectory(prefix="recgraph-fetched-") as scratch:
        place = Path(scratch)
        for last in range(_TRIES):
            try:
                _bring(system, root, names, place)
                break
            except FileNotFoundError:
                if last + 1 == _TRIES:
                    raise StoreError(f"No snapshot ({', '.join(names)}) is in {shown(folder)}.") from None
            except _failures() as error:
                raise _unread(folder, error) from None
        yield place


@contextmanager
def sent(folder: str, names: Sequence[str]) -> Iterator[Path]:
    """A folder here, of which these files take the place of those in the folder there when the block has ended well."""
    system, root = _opened(folder)
    with tempfile.TemporaryDirectory(prefix="recgraph-sent-") as scratch:
        place = Path(scratch)
        yield place
        try:
            current = {name: _content_name(place / name) for name in names}
            for name, there in current.items():
                if not system.exists(f"{root}/{there}"):
                    system.put_file(str(place / name), f"{root}/{there}")
            system.pipe_file(f"{root}/{CURRENT}", json.dumps(current, indent=2, sort_keys=True).encode())
            _sweep(system, root, names, set(current.values()))
        except _failures() as error:
            before = "What was there before is still there."
            raise StoreError(f"The snapshot {shown(folder)} cannot be written ({_kind(error)}). {before}") from None


@contextmanager
def fetched_file(path: str) -> Iterator[Path]:
    """One file, here for the block. StoreError where it is not there."""
    system, root = _opened(path)
    with tempfile.TemporaryDirectory(prefix="recgraph-fetched-") as scratch:
        place = Path(scratch) / "file"
        try:
            system.get_file(root, str(place))
        except FileNotFoundError:
            raise StoreError(f"There is no file {shown(path)}.") from None
        except _failures() as error:
            raise _unread(path, error) from None
        yield place


@contextmanager
def sent_file(path: str) -> Iterator[Path]:
    """A file here that takes its place there when the block has ended well."""
    system, root = _opened(path)
    with tempfile.TemporaryDirectory(prefix="recgraph-sent-") as scratch:
        place = Path(scratch) / "file"
        yield place
        try:
            system.put_file(str(place), root)
        except _failures() as error:
            raise StoreError(f"{shown(path)} cannot be written ({_kind(error)}).") from None


def _opened(path: str) -> tuple[Any, str]:
    """The file system of a path, and its path there. StoreError naming the package of a driver that is missing."""
    try:
        import fsspec
        from fsspec.registry import known_implementations
    except ModuleNotFoundError:
        raise StoreError(f"{shown(path)} needs the package fsspec: pip install 'recgraph[scale]'") from None
    protocol = re.split(r"::|://", path)[0].lower()
    known = known_implementations.get(protocol, {})
    try:
        system, root = fsspec.url_to_fs(path)
    except ImportError:
        package = re.search(r"\b(?:s3fs|gcsfs|adlfs|ossfs|ocifs|\w+fs)\b", str(known.get("err", "")))
        wanted = f"pip install {package[0]}" if package else f"install fsspec's driver for {protocol}"
        raise StoreError(f"{shown(path)} needs a package that is not installed: {wanted}") from None
    except _failures() as error:
        if not known:
            raise StoreError(f"{shown(path)} begins with '{protocol}', which fsspec does not know.") from None
        raise _unread(path, error) from None
    return system, str(root).rstrip("/")


def _bring(system: Any, root: str, names: Sequence[str], place: Path) -> None:
    current = json.loads(system.cat_file(f"{root}/{CURRENT}")) if system.exists(f"{root}/{CURRENT}") else {}
    there = {name: f"{root}/{current.get(name, name)}" for name in names}
    before = [] if current else [system.ukey(one) for one in there.values()]
    for name, path in there.items():
        system.get_file(path, str(place / name))
        if current and _content_name(place / name) != current[name]:
            raise ValueError(f"{name} is damaged")
    if before and before != [system.ukey(one) for one in there.values()]:
        raise ValueError("it was replaced while it was read")


def _sweep(system: Any, root: str, names: Sequence[str], kept: set[str]) -> None:
    """Takes away what earlier snapshots sent."""
    ours = re.compile(rf"(?:{'|'.join(re.escape(Path(name).stem) for name in names)})-[0-9a-f]{{16}}\.\w+")
    for path in system.ls(root, detail=False):
        name = str(path).rpartition("/")[2]
        if ours.fullmatch(name) and name not in kept:
            system.rm_file(path)


def _content_name(file: Path) -> str:
    with file.open("rb") as opened:
        return f"{file.stem}-{hashlib.file_digest(opened, 'sha256').hexdigest()[:16]}{file.suffix}"


def _unread(path: str, error: BaseException) -> StoreError:
    return StoreError(f"{shown(path)} cannot be read ({_kind(error)}).")


def _failures() -> tuple[type[BaseException], ...]:
    loaded = [(sys.modules[module], name) for module, name in _OF_DRIVERS if module in sys.modules]
    return (OSError, RuntimeError, ValueError, *(getattr(module, name) for module, name in loaded))


def _kind(error: BaseException) -> str:
    return type(error).__name__
