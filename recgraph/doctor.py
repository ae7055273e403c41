"""`recgraph doctor`: what works on this machine, and the exact command that mends what does not.

It looks, and changes nothing (but where `deep` is told to): no model is loaded, no store is made or migrated, one short
request goes to the LLM server if one is set. Every check catches what can be expected to go wrong and turns it into a
line; it does not know how to print itself in other ways than `report`, and exit codes are the command's.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recgraph.errors import ModelMissing, RecgraphError, StoreBusy, StoreError
from recgraph.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

INSTALL = "make install   (or, in the sources: pip install -c constraints.txt -e '.[local,vllm]')"
INSTALL_GPU = "make install GPU=1   (docs/operations.md, 'GPU hosts')"
FAISS_BUILDS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu12")
INSTALL_TRAIN = "pip install -c constraints.txt -e '.[train]'   (in the sources)"
DEMO = "recgraph demo --store {store}   (a simulated shop), or recgraph ingest PATH... --store {store}"
MAKE_TRAINED = "dvc repro (docs/training.md); for the simulated shop: recgraph demo --store {store}"
SERVER_SECONDS = 2.0
SERVER_BYTES = 512 << 10  # of its answer that are read
LEAST_DISK = 1.0  # GiB; the converted base model takes 0.3, the rest is room for a store and its log
LEAST_MEMORY = 2.0  # GiB; torch, the base model in float32 and the sentence encoder together take about 1.5


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report. `ok`: True works, False does not and should, None is not there and need not be.

    `mend` is the command that mends it, "" where nothing is wrong.
    """

    name: str
    ok: bool | None
    found: str
    mend: str = ""


def checks(settings: Settings) -> list[Check]:
    """All checks, in the order they are worth reading: what everything stands on comes first. Takes a few seconds,
    torch is imported."""
    machine: tuple[Callable[[Settings], Iterator[Check]], ...] = (_python, _packages, _processor)
    sections = (*machine, _models, _store, _adapters, _room, _server, _optional)
    return [check for section in sections for check in section(settings)]


def deep(settings: Settings, checkpoint_files: Sequence[Path] = (), mend: bool = False) -> list[Check]:
    """What is found in the files themselves (store/care/health.py): all of them are read. With `mend`, what can be
    mended without losing anything is."""
    from recgraph.store.care.health import examine

    found = []
    for one in examine(Path(os.path.expanduser(settings.store)), checkpoint_files):
        if mend and one.mend is not None:
            try:
                found.append(Check(one.name, True, f"mended: {one.found}; {one.mend()}"))
            except (RecgraphError, OSError) as error:
                found.append(Check(one.name, False, f"{one.found}. Not mended: {error}", one.command))
        else:
            found.append(Check(one.name, one.ok, one.found, one.command))
    return found


def report(found: list[Check]) -> RenderableType:
    """The checks as a rich renderable, the mending commands under their lines and a verdict below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    marks = {
        True: Text("ok", style="green"),
        False: Text("broken", style="bold red"),
        None: Text("absent", style="yellow"),
    }
    table = Table.grid(padding=(0, 2))
    for check in found:
        table.add_row(marks[check.ok], Text(check.name, style="bold"), Text(check.found))
        if check.mend:
            table.add_row("", "", Text(f"→ {check.mend}", style="cyan"))
    broken = [check.name for check in found if check.ok is False]
    verdict = (
        Text(f"To mend: {', '.join(broken)}.", style="bold red")
        if broken
        else Text("Everything needed works.", style="green")
    )
    return Group(table, Text(), verdict)


# ── Python and packages ───────────────────────────────────────────────────────────────────────────────────────────────


def _python(_: Settings) -> Iterator[Check]:
    version = platform.python_version()
    fine = sys.version_info >= (3, 11)
    mend = "" if fine else "install Python 3.11 or newer and make the environment with it: python3.11 -m venv .venv"
    yield Check("python", fine, f"{version}, {platform.system()} {platform.machine()}, {sys.prefix}", mend)


def _packages(settings: Settings) -> Iterator[Check]:
    """One line an extra, out of recgraph's own metadata, so that no second list of dependencies has to be kept."""
    try:
        wanted = metadata.requires("recgraph") or []
    except metadata.PackageNotFoundError:
        yield Check("packages", False, "recgraph is imported from a folder, it is not installed", INSTALL)
        return
    needed = {"": True, "local": True, "vllm": bool(settings.llm_url), "train": False}
    for extra, must in needed.items():
        there, wrong = _installed(wanted, extra)
        name = f"packages [{extra}]" if extra else "packages"
        if wrong:
            found = "; ".join(wrong) + (f" (there: {', '.join(there)})" if there else "")
            yield Check(name, False if must else None, found, INSTALL_TRAIN if extra == "train" else INSTALL)
        else:
            yield Check(name, True, ", ".join(there))


def _installed(requirements: list[str], extra: str) -> tuple[list[str], list[str]]:
    """What one extra asks for: (packages with version, complaints)."""
    from packaging.requirements import Requirement

    there: list[str] = []
    wrong: list[str] = []
    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        for_extra = marker is not None and "extra" in str(marker)
        if (
            for_extra != bool(extra)
            or (marker is not None and not marker.evaluate({"extra": extra}))
            or requirement.name == "recgraph"
        ):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if requirement.name == "faiss-cpu" and importlib.util.find_spec("faiss") is not None:
                there.append("faiss (another build)")  # GPU builds go by other names and do the same work
            else:
                wrong.append(f"{requirement.name} is missing")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            there.append(f"{requirement.name} {version}")
        else:
            wrong.append(f"{requirement.name} is {version}, wanted is {requirement.specifier}")
    return there, wrong


def _load(name: str) -> Any:
    """The module, or the reason as a string: a broken build shows as OSError (a missing library) as often as
    ImportError."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return f"{name} cannot be imported: {error}"


# ── Processor and GPU ─────────────────────────────────────────────────────────────────────────────────────────────────


def _processor(_: Settings) -> Iterator[Check]:
    torch = _load("torch")
    if isinstance(torch, str):
        yield Check(
            "torch", False, torch, "pip install --force-reinstall torch==2.13.0   (the CPU build where there is no GPU)"
        )
    else:
        from recgraph.tools.llm.places import placement

        flags = cpu_flags()
        has = (
            ", ".join(flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags)
            or torch.backends.cpu.get_cpu_capability()
        )
        device, dtype = placement()
        how = f"models run on {device} in {str(dtype).removeprefix('torch.')}"
        yield Check("processor", True, f"{torch.get_num_threads()} threads, {has}; {how}")
        yield _gpu(torch)
    yield _faiss()
    yield _vllm()


def _faiss() -> Check:
    """Which build: those for a card go by other names, and fill the same folder as faiss-cpu."""
    faiss = _load("faiss")
    if isinstance(faiss, str):
        return Check("faiss", False, faiss, "pip install --force-reinstall faiss-cpu")
    there = [f"{name} {version}" for name in FAISS_BUILDS if (version := _version(name))]
    if len(there) > 1:
        other = there[-1].split()[0]
        mend = f"pip uninstall -y faiss-cpu && pip install --no-deps --force-reinstall {other}"
        return Check("faiss", False, f"{' and '.join(there)} fill one folder, and each lacks files of its own", mend)
    cards = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    build = there[0] if there else f"another build, {getattr(faiss, '__version__', 'unknown version')}"
    found = f"{build}, {cards or 'no'} GPU{'s' if cards > 1 else ''}"
    if not cards and nvidia_cards():
        return Check("faiss", True, f"{found}: a card is here, which it does not use", INSTALL_GPU)
    return Check("faiss", True, found)


def _vllm() -> Check:
    """The server's own environment; the client is an extra."""
    from recgraph.llm.launch import find_vllm

    cards = nvidia_cards()
    make = f"make vllm{' GPU=1' if cards else ''}"
    try:
        vllm = find_vllm()
    except ModelMissing as error:
        return Check("vllm", None, str(error), f"{make}   (only `recgraph llm serve` needs it)")
    found = f"{vllm.package} {vllm.version} in {vllm.python}"
    if vllm.on_cpu and cards:
        return Check("vllm", True, f"{found}: a card is here, which it does not use", make)
    return Check("vllm", True, found)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _gpu(torch: Any) -> Check:
    build = f"torch {torch.__version__} ({f'CUDA {torch.version.cuda}' if torch.version.cuda else 'a CPU build'})"
    try:
        if torch.cuda.is_available():
            free, total = (size / 2**30 for size in torch.cuda.mem_get_info(0))
            return Check("gpu", True, f"{torch.cuda.get_device_name(0)}, {free:.0f} of {total:.0f} GiB free, {build}")
    except RuntimeError as error:  # a driver that does not fit shows only when it is asked
        return Check(
            "gpu",
            False,
            f"{build} sees a GPU and cannot use it: {error}",
            "set CUDA_VISIBLE_DEVICES= to run on the CPU",
        )
    if cards := nvidia_cards():
        return Check("gpu", None, f"{', '.join(cards)}, which {build} cannot use", INSTALL_GPU)
    return Check("gpu", None, f"none that {build} can use; everything runs on the CPU")


@cache
def nvidia_cards() -> tuple[str, ...]:
    """The cards that the driver knows, whatever torch can use; none where there is no driver of NVIDIA's."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in told.splitlines() if line.strip())


def cpu_flags() -> frozenset[str]:
    """The instruction sets the kernel reports; empty where it does not say (not Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(
        word
        for line in text.splitlines()
        if line.startswith(("flags", "Features"))
        for word in line.partition(":")[2].split()
    )


# ── Models ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _models(settings: Settings) -> Iterator[Check]:
    from recgraph.tools.llm import places

    model = places.given_llm(settings.llm)
    named = "give {0} a folder with config.json and *.safetensors, or: hf download {1}"
    mend = named.format("RECGRAPH_LLM", model) if model else places.INSTALL_LLM
    if settings.llm_url or settings.llm == "none":
        yield Check(
            "base model",
            None,
            "not looked for here: the LLM server has it" if settings.llm_url else "none wanted (RECGRAPH_LLM=none)",
        )
    else:
        found = _place("base model", lambda: places.locate_llm(model, settings.cache_folder), mend)
        if not settings.asks_llm:
            unasked = f"{found.found}; asked with --llm default" if found.ok else f"not asked. {found.found}"
            found = replace(found, ok=found.ok or None, found=unasked)
        yield found
    mend = named.format("RECGRAPH_EMBEDDER", settings.embedder) if settings.embedder else places.INSTALL_ENCODER
    yield _place("sentence encoder", lambda: places.locate_encoder(settings.embedder), mend)


def _place(name: str, locate: Callable[[], str], mend: str) -> Check:
    try:
        return Check(name, True, locate())
    except (ModelMissing, ImportError, OSError) as error:
        return Check(name, False, str(error), mend)


# ── Store ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _store(settings: Settings) -> Iterator[Check]:
    path = Path(settings.store)
    room = _load("recgraph.store.db")
    if isinstance(room, str):  # duckdb is missing or broken; the packages' lines say so too
        yield Check("store", False, room, INSTALL)
        return
    if not path.exists():
        yield Check("store", False, f"{path.absolute()} does not exist", DEMO.format(store=path))
        return
    try:
        with room.Store.open(path) as store:
            counts, simulated, version = store.counts(), store.meta("simulated"), store.meta("schema_version")
            trained = list(_trained(store))
    except StoreBusy as error:
        yield Check("store", False, str(error), "wait for the other process to end, or read from a copy of the file")
        return
    except StoreError as error:
        said = "doctor --deep" in str(error)  # which mends a damaged one
        yield Check("store", False, str(error), "" if said else DEMO.format(store=path))
        return
    told = ", ".join(
        f"{counts[name]:,} {name}" for name in ("users", "items", "events", "exposures", "rejects") if name in counts
    )
    found = f"{path.absolute()}, schema {version}, {told}{'; simulated data' if simulated else ''}"
    yield Check("store", bool(counts.get("items")), found, "" if counts.get("items") else DEMO.format(store=path))
    yield from trained
    yield _writable(path)


def _trained(store: Any) -> Iterator[Check]:
    """Whether trained parts rank in this store, and whether they are of what it holds now."""
    room = _load("recgraph.tools.trained")
    if isinstance(room, str):  # a package is missing, which the packages' lines say
        return
    facts = room.published_facts(store)
    told = room.in_words(facts)
    if not told:
        yield Check(
            "trained parts", None, "none: counts and hand-set weights rank", MAKE_TRAINED.format(store=store.path)
        )
    elif facts["revision"] != store.revision():
        found = f"{told}; what was ingested since is counted, not learnt"
        yield Check("trained parts", True, found)
    else:
        yield Check("trained parts", True, told)


def _adapters(settings: Settings) -> Iterator[Check]:
    """The set a run would take: asked for by a setting, it has to be there; the store's default may be missing."""
    wanted, asked = settings.adapter, bool(settings.adapter)
    if not asked and Path(settings.store).is_file():
        try:
            with _load("recgraph.store.db").Store.open(settings.store) as store:
                wanted = store.meta("adapter") or ""
        except (RecgraphError, AttributeError):
            return  # the store's own line says what is wrong
    if wanted in ("", "none") or settings.llm == "none" or settings.llm_url:
        found = "a server's: see llm server" if settings.llm_url else "none chosen; the base model answers untrained"
        yield Check(
            "adapters", None, found, "" if settings.llm_url else "recgraph adapters list; recgraph adapters use SET"
        )
        return
    from recgraph.graph.prompts import VERSIONS
    from recgraph.tools.llm.adapter_sets import base_here, find_set, problem

    choose = "recgraph adapters list; then " + (
        "set RECGRAPH_ADAPTER" if asked else f"recgraph adapters use SET --store {settings.store}"
    )
    try:
        one = find_set(wanted, settings.store)
    except ModelMissing as error:
        yield Check("adapters", False if asked else None, str(error), choose)
        return
    if wrong := problem(one, base_here(settings.llm, settings.cache_folder)):
        yield Check("adapters", False if asked else None, wrong, choose)
        return
    old = [name for name, card in one.cards.items() if card.prompt_version not in ("", VERSIONS.get(name, ""))]
    found = f"{one.label} ({', '.join(one.tasks)}) in {one.folder}"
    if old:
        yield Check("adapters", None, f"{found}; {', '.join(old)} learnt other prompts than today's", "dvc repro")
    else:
        yield Check("adapters", True, found)


def _writable(path: Path) -> Check:
    """Reading is enough to recommend; then summaries, embeddings and the run log are not kept."""
    blocked = [str(part) for part in (path, path.absolute().parent) if not os.access(part, os.W_OK)]
    if blocked:
        found = f"{blocked[0]} is read-only: recommendations work, what they learn is not kept"
        return Check("store, writing", None, found, f"chmod u+w {blocked[0]}")
    return Check("store, writing", True, "the store and its folder can be written")


def _room(settings: Settings) -> Iterator[Check]:
    for name, folder in (
        ("disk, store", Path(settings.store).absolute().parent),
        ("disk, cache", settings.cache_folder),
    ):
        place = next((part for part in (folder, *folder.parents) if part.exists()), Path("/"))
        try:
            free = shutil.disk_usage(place).free / 2**30
        except OSError as error:
            yield Check(name, False, f"{place}: {error}", "choose another place: RECGRAPH_STORE, RECGRAPH_CACHE")
            continue
        mend = (
            ""
            if free >= LEAST_DISK
            else f"free {LEAST_DISK:.0f} GiB there, or choose another place: RECGRAPH_STORE, RECGRAPH_CACHE"
        )
        yield Check(name, free >= LEAST_DISK, f"{free:.1f} GiB free at {place}", mend)
    memory = _memory()
    if memory is not None:
        mend = "" if memory >= LEAST_MEMORY else "close other programs, or put the LLM on a server: RECGRAPH_LLM_URL"
        yield Check("memory", memory >= LEAST_MEMORY, f"{memory:.1f} GiB available", mend)


def _memory() -> float | None:
    """GiB that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable:")), None)


# ── Server, and what is only sometimes wanted ─────────────────────────────────────────────────────────────────────────


def _server(settings: Settings) -> Iterator[Check]:
    if not settings.llm_url:
        yield Check("llm server", None, "none set (RECGRAPH_LLM_URL); an LLM that is asked runs in process")
        return
    from recgraph.tools.llm.adapter_sets import served_names

    look = f"curl {settings.llm_url.rstrip('/')}/models"
    mend = f"start it (docs/models.md, 'A vLLM server'), or unset RECGRAPH_LLM_URL; to look: {look}"
    try:
        names = served_models(settings.llm_url, settings.llm_api_key)
    except RecgraphError as error:
        yield Check("llm server", False, str(error), mend)
        return
    found = f"{settings.llm_url} serves {', '.join(names) or 'nothing'}"
    if settings.llm not in ("", "default", *names):
        yield Check(
            "llm server", False, f"{found}, but not '{settings.llm}'", f"RECGRAPH_LLM must be among: {', '.join(names)}"
        )
    elif settings.adapter not in ("", "none") and not served_names(settings.adapter, names):
        serve = f"--enable-lora --lora-modules {Path(settings.adapter).name}-recommend=FOLDER …"
        mend = f"start it with {serve} (docs/adapters.md, 'Adapters on a server')"
        yield Check("llm server", False, f"{found}, but no adapter of the set '{settings.adapter}'", mend)
    else:
        yield Check("llm server", bool(names), found, "" if names else mend)


def served_models(url: str, key: str = "", seconds: float = SERVER_SECONDS) -> list[str]:
    """The names an OpenAI-compatible server answers for (GET url/models). Raises LLMUnavailable when it gives none in
    time."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    from recgraph.errors import LLMUnavailable
    from recgraph.tools.llm.threads import together
    from recgraph.tools.llm.untrusted import one_line

    class Staying(HTTPRedirectHandler):
        """Follows no redirect: the key is the asked server's alone."""

        def redirect_request(self, *_: Any) -> None:
            return None

    def asked() -> list[str]:
        request = Request(f"{url.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"} if key else {})
        try:
            with build_opener(Staying).open(request, timeout=seconds) as answer:
                return [one_line(str(model["id"]), 100) for model in json.loads(answer.read(SERVER_BYTES))["data"]]
        except HTTPError as error:
            error.close()
            raise

    try:
        [names] = together([asked], time.monotonic() + seconds)  # also where it answers a byte at a time
    except (OSError, HTTPException) as error:  # URLError, HTTPError and time-outs are OSErrors
        reason = one_line(str(error)) or f"not within {seconds:.0f} s"
        raise LLMUnavailable(f"{url} does not answer: {reason}") from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:  # no URL, no JSON, or JSON of another kind
        raise LLMUnavailable(f"{url} is no OpenAI-compatible server: {one_line(repr(error))}") from None
    return names


def _optional(_: Settings) -> Iterator[Check]:
    beside = str(Path(sys.executable).parent)  # an environment's commands are there, whether it is activated or not
    dvc = shutil.which("dvc", path=beside) or shutil.which("dvc")
    if dvc:
        found = dvc if Path(dvc).parent == Path(beside) else f"{dvc}, which is not of this environment"
        yield Check("dvc", True, found)
    else:
        yield Check("dvc", None, f"neither in {beside} nor on PATH; only training and its data need it", INSTALL_TRAIN)
