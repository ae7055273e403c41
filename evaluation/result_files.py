"""Results as JSON files: one writer, one reader.

    metrics/leaderboard/NAME.json   a `Result`, a `Line` for each system
    metrics/ablations/NAME.json     an `Ablation`, a `Variation` for each variant

Reading and writing a result gives the same bytes; what no result has is an error, so that nothing of a file is passed
over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from recgraph.errors import StoreError
from recgraph.evaluation.origin import Origin
from recgraph.evaluation.result import (
    MAIN,
    Ablation,
    Against,
    Ceiling,
    Figure,
    Group,
    Line,
    MeanTokens,
    Milliseconds,
    Result,
    Share,
    Variation,
)

T = TypeVar("T")

# ── To JSON ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(found: Result | Ablation, file: Path) -> None:
    """As JSON; folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text_of(found), encoding="utf-8")


def text_of(found: Result | Ablation) -> str:
    """The file's text."""
    data = as_json(found) if isinstance(found, Result) else ablation_as_json(found)
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def as_json(result: Result) -> dict[str, Any]:
    """What a result's file holds."""
    data: dict[str, Any] = {
        "dataset": result.dataset,
        "split": result.split,
        "protocol": result.protocol,
        "seen": result.seen,
        "cases": result.cases,
    }
    data |= _known(dropped=_copied(result.dropped), sample=result.sample, items=result.items)
    data |= _known(**asdict(result.origin), seeds=_listed(result.seeds), embedder=result.embedder)
    data["systems"] = [_line_as_json(line) for line in result.lines]
    if result.low_resource:
        data["low_resource"] = [
            {"system": one.system, "share": one.share, MAIN: _figure_as_json(one.figure)} for one in result.low_resource
        ]
    return data


def ablation_as_json(found: Ablation) -> dict[str, Any]:
    """What an ablation's file holds."""
    data: dict[str, Any] = {
        "ablation": found.ablation,
        "dataset": found.dataset,
        "split": found.split,
        "cases": found.cases,
    }
    data |= {"users": found.users, "sample": found.sample, "seed": found.seed}
    variants = []
    for one in found.variants:
        line: dict[str, Any] = {
            "name": one.name,
            "settings": dict(one.settings),
            "metrics": _figures_as_json(one.metrics),
        }
        line |= {"invalid": one.invalid, "degraded": one.degraded, "tokens": asdict(one.tokens), "ms": asdict(one.ms)}
        variants.append(line | _known(against=_against_as_json(one.against)))
    return {**data, **_known(**asdict(found.origin)), "variants": variants}


def _line_as_json(line: Line) -> dict[str, Any]:
    data: dict[str, Any] = {"name": line.name, "uses": [*line.uses], "settings": dict(line.settings)}
    data |= {"fit_seconds": line.fit_seconds, "score_ms": line.score_ms}
    data |= _known(missing_cases=line.missing_cases, unknown_cases=line.unknown_cases, machine=line.machine)
    data |= _known(
        tokens=asdict(line.tokens) if line.tokens else None, ceiling=asdict(line.ceiling) if line.ceiling else None
    )
    data |= {"seeds": [*line.seeds], "metrics": _figures_as_json(line.metrics)}
    data["groups"] = {name: {"cases": group.cases, **group.means} for name, group in line.groups.items()}
    data["curve"] = {str(k): value for k, value in line.curve.items()}
    return data | _known(against=_against_as_json(line.against), popular_negatives=_copied(line.popular))


def _figures_as_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    return {name: _figure_as_json(figure) for name, figure in figures.items()}


def _figure_as_json(figure: Figure) -> dict[str, Any]:
    return {"mean": figure.mean, **_known(low=figure.low, high=figure.high)}


def _against_as_json(against: Against | None) -> dict[str, Any] | None:
    if against is None:
        return None
    difference = against.difference
    data = {"best": against.other, "difference": difference.mean, "low": difference.low, "high": difference.high}
    return {**data, **_known(p=against.p, p_holm=against.p_holm)}


def _known(**data: Any) -> dict[str, Any]:
    """Without what is not known."""
    return {name: value for name, value in data.items() if value is not None}


def _copied(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if data is None else dict(data)


def _listed(numbers: Sequence[int] | None) -> list[int] | None:
    return None if numbers is None else [*numbers]


# ── From JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_ORIGIN = tuple(one.name for one in fields(Origin))
_RESULT: Sequence[str] = (
    *("dataset", "split", "protocol", "seen", "cases", "dropped", "sample", "items", *_ORIGIN, "seeds", "embedder"),
    *("systems", "low_resource"),
)
_LINE: Sequence[str] = (
    *("name", "uses", "settings", "fit_seconds", "score_ms", "missing_cases", "unknown_cases", "tokens", "ceiling"),
    *("seeds", "metrics", "groups", "curve", "against", "popular_negatives", "machine"),
)


_ABLATION: Sequence[str] = (
    *("ablation", "dataset", "split", "cases", "users", "sample", "seed", *_ORIGIN, "variants"),
)
_VARIATION: Sequence[str] = ("name", "settings", "metrics", "invalid", "degraded", "tokens", "ms", "against")


def read(file: Path) -> Result:
    """StoreError, naming the file and what is wrong in it, for one that `recgraph evaluate` has not written."""
    return _read(file, result_of, "evaluate")


def read_ablation(file: Path) -> Ablation:
    """StoreError, naming the file and what is wrong in it, for one that `recgraph ablate` has not written."""
    return _read(file, ablation_of, "ablate")


def _read(file: Path, made: Callable[[Any], T], command: str) -> T:
    try:
        return made(json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda _: None))
    except (OSError, TypeError, ValueError) as error:
        raise StoreError(
            f"{file} is no result of recgraph {command} ({error}); make it again: recgraph {command} … --out {file}"
        ) from None


def result_of(found: Any) -> Result:
    """Of what a file holds. ValueError that says what is wrong."""
    data = _object(found, "it", _RESULT)
    lines = tuple(_line(one) for one in _list(data, "systems"))
    if not lines:
        raise ValueError("it has no system")
    return Result(
        **{name: str(_needed(data, name)) for name in ("dataset", "split", "protocol", "seen")},
        cases=int(_needed(data, "cases")),
        lines=lines,
        dropped=None if data.get("dropped") is None else _mapping(data, "dropped"),
        sample=_whole(data.get("sample")),
        items=_whole(data.get("items")),
        origin=_origin(data),
        seeds=None if data.get("seeds") is None else tuple(_list(data, "seeds")),
        embedder=data.get("embedder"),
        low_resource=tuple(
            Share(str(_needed(one, "system")), _number(_needed(one, "share")) or 0.0, _figure(one.get(MAIN)))
            for one in _list(data, "low_resource")
        ),
    )


def ablation_of(found: Any) -> Ablation:
    """Of what a file holds. ValueError that says what is wrong."""
    data = _object(found, "it", _ABLATION)
    variants = tuple(_variation(one) for one in _list(data, "variants"))
    if not variants:
        raise ValueError("it has no variant")
    return Ablation(
        ablation=str(_needed(data, "ablation")),
        dataset=str(_needed(data, "dataset")),
        split=str(_needed(data, "split")),
        cases=int(_needed(data, "cases")),
        users=int(_needed(data, "users")),
        sample=int(_needed(data, "sample")),
        seed=int(_needed(data, "seed")),
        origin=_origin(data),
        variants=variants,
    )


def _origin(data: Mapping[str, Any]) -> Origin:
    origin = Origin(**{name: data.get(name) for name in _ORIGIN})
    _number(origin.seconds)
    return origin


def _variation(found: Any) -> Variation:
    data = _object(found, "a variant", _VARIATION)
    against = data.get("against")
    return Variation(
        name=str(_needed(data, "name")),
        settings=_mapping(data, "settings"),
        metrics=_figures(data),
        invalid=_measured(data, "invalid"),
        degraded=_measured(data, "degraded"),
        tokens=_all_measured(data, "tokens", MeanTokens),
        ms=_all_measured(data, "ms", Milliseconds),
        against=_against(against) if against else None,
    )


def _line(found: Any) -> Line:
    data = _object(found, "a system", _LINE)
    against, tokens, ceiling, popular = (
        data.get(name) for name in ("against", "tokens", "ceiling", "popular_negatives")
    )
    return Line(
        name=str(_needed(data, "name")),
        uses=tuple(str(one) for one in _list(data, "uses")),
        settings=_mapping(data, "settings"),
        fit_seconds=_number(data.get("fit_seconds")),
        score_ms=_number(data.get("score_ms")),
        missing_cases=_whole(data.get("missing_cases")),
        unknown_cases=_whole(data.get("unknown_cases")),
        tokens=MeanTokens(**_object(tokens, "tokens", [one.name for one in fields(MeanTokens)])) if tokens else None,
        ceiling=Ceiling(**_object(ceiling, "ceiling", [one.name for one in fields(Ceiling)])) if ceiling else None,
        seeds=tuple(int(seed) for seed in _list(data, "seeds")),
        machine=None if data.get("machine") is None else str(data["machine"]),
        metrics=_figures(data),
        groups={name: _group(one) for name, one in _mapping(data, "groups").items()},
        curve={
            int(k): number for k, value in _mapping(data, "curve").items() if (number := _number(value)) is not None
        },
        against=_against(against) if against else None,
        popular=None
        if popular is None
        else {name: _number(one) for name, one in _object(popular, "popular_negatives").items()},
    )


def _against(found: Any) -> Against:
    data = _object(found, "against", ("best", "difference", "low", "high", "p", "p_holm"))
    difference = Figure(*(_number(data.get(name)) for name in ("difference", "low", "high")))
    return Against(str(_needed(data, "best")), difference, _number(data.get("p")), _number(data.get("p_holm")))


def _group(found: Any) -> Group:
    data = _object(found, "a group")
    return Group(int(_needed(data, "cases")), {name: _number(value) for name, value in data.items() if name != "cases"})


def _figures(data: Mapping[str, Any]) -> dict[str, Figure]:
    return {name: _figure(one) for name, one in _object(_needed(data, "metrics"), "metrics").items()}


def _figure(found: Any) -> Figure:
    """A bare number is one without an interval."""
    if isinstance(found, Mapping):
        data = _object(found, "a figure", ("mean", "low", "high"))
        return Figure(*(_number(data.get(name)) for name in ("mean", "low", "high")))
    return Figure(_number(found))


def _object(found: Any, what: str, known: Sequence[str] | None = None) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise ValueError(f"{what} is {found!r}, no object")
    unknown = [name for name in found if known is not None and name not in known]
    if unknown:
        raise ValueError(f"{what} has '{unknown[0]}', which no result of this version has")
    return dict(found)


def _mapping(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    return _object(data.get(name) or {}, name)


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name) or []
    if not isinstance(found, list):
        raise ValueError(f"{name} is {found!r}, no list")
    return found


def _needed(data: Mapping[str, Any], name: str) -> Any:
    if name not in data:
        raise ValueError(f"without '{name}'")
    return data[name]


def _measured(data: Mapping[str, Any], name: str) -> float:
    number = _number(_needed(data, name))
    if number is None:
        raise ValueError(f"without a number as '{name}'")
    return number


def _all_measured(data: Mapping[str, Any], name: str, kind: Callable[..., T]) -> T:
    """A dataclass of nothing but numbers."""
    found = _object(_needed(data, name), name)
    return kind(**{part: _measured(found, part) for part in found})


def _whole(found: Any) -> int | None:
    if found is not None and (isinstance(found, bool) or not isinstance(found, int)):
        raise ValueError(f"{found!r} is no whole number")
    return found


def _number(found: Any) -> float | None:
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f"{found!r} is no number")
    return found if math.isfinite(found) else None
