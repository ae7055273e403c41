"""The shape of the code, held by tests: import order, how large rooms are, public names, who writes SQL, what a wheel
holds, how fast --help is.
"""

import ast
import functools
import graphlib
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import recgraph

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("store", "tools", "graph", "train", "evaluation")  # lowest first
MODULES = sorted(path for room in ("recgraph", *ROOMS) for path in (ROOT / room).rglob("*.py"))
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "faiss",
    "duckdb",
    "numpy",
    "scipy",
    "langgraph",
    "langchain_core",
    "langchain_openai",
    "openai",
}
FILES = 15  # modules side by side in a folder
MORE = {
    "train": 17,
    "store/ingest": 16,
}  # a module a stage beside what stages share; a module a family of formats beside the steps of an ingest
SHARE = 1 / 3  # of all lines, in one room


def name_of(path: Path) -> str:
    """The installed name: store/db.py is recgraph.store.db."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "recgraph" else ("recgraph", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def height(module: str) -> int:
    """0 for errors, 1 for settings, then the rooms from the store up, then the doors (recgraph itself and its other
    modules).
    """
    inside = [*module.split("."), ""][1]
    if inside in ROOMS:
        return 2 + ROOMS.index(inside)
    return {"errors": 0, "settings": 1}.get(inside, 2 + len(ROOMS))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported anywhere below, `from recgraph.store import db` as recgraph.store.db."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"line {node.lineno}: imports are absolute, because the folders are not where the installed names are"
            )
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def imported_modules() -> dict[str, frozenset[str]]:
    """Of each module the modules of recgraph that it names in an import, at its top, in a function or for types alone."""
    known = {name_of(path) for path in MODULES}

    def module_of(name: str) -> str:
        """The module in which an imported name stands: recgraph.store.db.Store is of recgraph.store.db."""
        while name not in known:
            name = name.rpartition(".")[0]
        return name

    def of(path: Path) -> frozenset[str]:
        return frozenset(module_of(there) for there in imports(tree_of(path)) if there.split(".")[0] == "recgraph") - {
            name_of(path)
        }

    return {name_of(path): of(path) for path in MODULES}


def imports_at_top(tree: ast.Module) -> Iterator[str]:
    """What importing the module imports: not what stands in functions or under `if TYPE_CHECKING`."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Try | ast.If) and "TYPE_CHECKING" not in ast.dump(node):
            yield from imports(node)


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout


def test_imports_point_down() -> None:
    wrong = [
        f"{here} imports {there}"
        for here, all_there in imported_modules().items()
        for there in sorted(all_there - {"recgraph"})  # the face itself, which costs nothing and knows the version
        if height(there) > height(here)
    ]
    assert not wrong


def test_no_module_leads_back_to_itself_by_its_imports() -> None:
    """Imports in functions count: one that hides a circle means that something stands in the wrong room."""
    try:
        graphlib.TopologicalSorter(imported_modules()).prepare()
    except graphlib.CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])))


def test_no_room_holds_more_than_a_third_of_the_lines() -> None:
    lines = {
        room: sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / room).rglob("*.py"))
        for room in ("recgraph", *ROOMS)
    }
    assert {room: count for room, count in lines.items() if count > SHARE * sum(lines.values())} == {}


def test_no_folder_holds_more_modules_than_one_overlooks() -> None:
    modules = Counter(str(path.parent.relative_to(ROOT)) for path in MODULES if path.name != "__init__.py")
    assert {folder: count for folder, count in modules.items() if count > MORE.get(folder, FILES)} == {}


def test_every_module_opens_with_what_it_holds() -> None:
    silent = [
        name_of(path)
        for path in MODULES
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(tree_of(path))
    ]
    assert not silent


def test_no_exception_is_caught_without_a_name() -> None:
    """`except BaseException` may clean up, if it then raises what it caught."""
    wrong = []
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = (
                {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {"everything"}
            )
            raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if caught & {"everything", "Exception", "BaseException"} and not raises_again:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong


def test_only_the_store_writes_sql() -> None:
    sql = re.compile(
        r"^\s*(SELECT\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|CREATE\s+(OR\s+REPLACE\s+)?(TEMP\s+)?(TABLE|VIEW|INDEX)\s"
        r"|DROP\s+(TABLE|VIEW|INDEX)\s|ALTER\s+TABLE\s|COPY\s+\w+\s+(FROM|TO)\s|WITH\s+\w+\s+AS\s*\(|PRAGMA\s|ATTACH\s)"
    )
    wrong = []
    for path in MODULES:
        if path.relative_to(ROOT).parts[0] == "store":
            continue
        tree = tree_of(path)
        wrong += [f"{name_of(path)} imports duckdb" for there in imports(tree) if there.split(".")[0] == "duckdb"]
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and sql.match(node.value):
                wrong.append(f"{name_of(path)}:{node.lineno}")
    assert not wrong


def test_rooms_have_sub_rooms_one_level_deep_and_tests_none() -> None:
    nested = [
        str(path.relative_to(ROOT)) for room in ("recgraph", *ROOMS) for path in (ROOT / room).glob("*/*/**/*.py")
    ]
    assert not nested + [str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("*/**/*.py")]


def test_the_face_shows_these_names_and_each_is_there() -> None:
    assert sorted(recgraph.__all__) == ["RecgraphError", "Recommender", "Settings", "__version__"]
    for name in recgraph.__all__:
        assert getattr(recgraph, name) is not None
    assert dir(recgraph) == sorted(recgraph.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Recomender'"):
        getattr(recgraph, "Recomender")  # noqa: B009


def test_the_version_is_the_same_everywhere() -> None:
    from importlib.metadata import version

    assert recgraph.__version__ == version("recgraph")


@pytest.mark.parametrize(
    "module",
    [
        "recgraph",
        "recgraph.cli",
        "recgraph.settings",
        "recgraph.errors",
        "recgraph.store.records",
        "recgraph.doctor.examine",
    ],
)
def test_what_must_be_instant_imports_nothing_heavy(module: str) -> None:
    loaded = json.loads(run_python(f"import json, sys, {module}; print(json.dumps(list(sys.modules)))"))
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_nothing_heavy_stands_at_the_top_of_a_door() -> None:
    doors = [path for path in MODULES if path.parent.name == "recgraph"]
    wrong = [
        f"{name_of(path)} imports {there}"
        for path in doors
        for there in imports_at_top(tree_of(path))
        if there.split(".")[0] in HEAVY
    ]
    assert not wrong


def test_help_costs_less_than_a_fifth_of_a_second() -> None:
    """Processor time of the child, not the clock: a busy machine must not fail this."""
    command = shutil.which("recgraph", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert command, "no recgraph command beside this Python; run `make install`"

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([command, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert statistics.median(once() for _ in range(5)) < 0.2


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built out of the source distribution as a user's pip would build it, in a copy so that nothing is left
    here.
    """
    source = tmp_path_factory.mktemp("source")
    for folder in ("recgraph", "tests", *ROOMS):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source / file)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", str(source)], check=True, capture_output=True, text=True
    )
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.mark.package
def test_the_wheel_holds_recgraph_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    info = f"recgraph-{recgraph.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"recgraph", info}
    wanted = {
        name_of(path).replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py") for path in MODULES
    }
    wanted |= {"recgraph/py.typed", "recgraph/store/schema.sql", "recgraph/protocols/app.html"}
    wanted |= {f"recgraph/evaluation/leaderboard/{name}" for name in ("page.css", "page.html.j2")}
    wanted |= {f"recgraph/page/{name}" for name in ("index.html", "page.css")}
    wanted |= {f"recgraph/page/{name}.js" for name in ("drawings", "elements", "graph", "page", "server")}
    wanted |= {
        f"recgraph/train/lora/engines/{file.name}" for file in (ROOT / "train" / "lora" / "engines").glob("*.yaml")
    }
    shipped = ROOT / "train" / "shop" / "shipped"
    wanted |= {
        f"recgraph/train/shop/shipped/{file.relative_to(shipped)}" for file in shipped.rglob("*") if file.is_file()
    }
    assert {name for name in names if name.startswith("recgraph/")} == wanted
    assert f"{info}/licenses/LICENSE" in names


@pytest.mark.package
def test_the_wheel_works_where_the_sources_are_not(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import importlib.resources as files, recgraph, recgraph.store.records as records\n"
        "print(recgraph.__file__, records.__file__, 'CREATE TABLE' in (files.files('recgraph.store') / "
        "'schema.sql').read_text())"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path, env=environ
    )
    face, records, schema = done.stdout.split()
    assert face.startswith(str(tmp_path))
    assert records.startswith(str(tmp_path))
    assert schema == "True"


def test_no_two_classes_of_the_product_have_one_name() -> None:
    """One name, one thing: a class is met in messages, tracebacks and searches too, where no module stands beside it."""
    homes: dict[str, list[str]] = {}
    for file in MODULES:
        for node in tree_of(file).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name_of(file))
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}
