"""What everything stands on: Python, the packages, the processor and the card, room on disk and in memory, DVC.

What runs on it is unknown here: no model is looked for, no store is opened. Of a server's address it asks only whether
there is one, for the packages.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from recgraph.doctor.check import INSTALL, INSTALL_TRAIN, Check, load
from recgraph.errors import ModelMissing
from recgraph.settings import Settings

INSTALL_GPU = "make install GPU=1   (docs/operations.md, 'GPU hosts')"
FAISS_BUILDS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu12")
LEAST_DISK = 1.0  # GiB; the converted base model takes 0.3, the rest is room for a store and its log
LEAST_MEMORY = 2.0  # GiB; torch, the base model in float32 and the sentence encoder together take about 1.5


def python(_: Settings) -> Iterator[Check]:
    version = platform.python_version()
    fine = sys.version_info >= (3, 11)
    mend = "" if fine else "install Python 3.11 or newer and make the environment with it: python3.11 -m venv .venv"
    yield Check("python", fine, f"{version}, {platform.system()} {platform.machine()}, {sys.prefix}", mend)


def packages(settings: Settings) -> Iterator[Check]:
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


# ── Processor and card ────────────────────────────────────────────────────────────────────────────────────────────────


def processor(_: Settings) -> Iterator[Check]:
    torch = load("torch")
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
    faiss = load("faiss")
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


# ── Room, and what is only sometimes wanted ───────────────────────────────────────────────────────────────────────────


def room(settings: Settings) -> Iterator[Check]:
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


def optional(_: Settings) -> Iterator[Check]:
    beside = str(Path(sys.executable).parent)  # an environment's commands are there, whether it is activated or not
    dvc = shutil.which("dvc", path=beside) or shutil.which("dvc")
    if dvc:
        found = dvc if Path(dvc).parent == Path(beside) else f"{dvc}, which is not of this environment"
        yield Check("dvc", True, found)
    else:
        yield Check("dvc", None, f"neither in {beside} nor on PATH; only training and its data need it", INSTALL_TRAIN)
