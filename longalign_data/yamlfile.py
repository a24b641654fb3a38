"""YAML files read strictly into pydantic models, with errors that name file, line and key.

In: a path and a model class. Out: the model. An error reads

    recipes/mine.yaml:12: sample.bucket: unknown key; known here: buckets, count, languages, sources, strategy
"""

import difflib
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from longalign_data.errors import RecipeError


class Strict(BaseModel):
    """Base of everything read from outside: unknown keys and silent conversions are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)


ModelT = TypeVar("ModelT", bound=BaseModel)
Location = tuple[str | int, ...]


def load(path: Path, model: type[ModelT]) -> ModelT:
    """The file as `model`. Raises RecipeError naming the file, the line, the key, what was expected and what is known."""
    return parse(read_text(path), path, model)


def read_text(path: Path) -> str:
    """The file's text. Raises RecipeError when it is missing, a folder, or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f"; beside it stand: {', '.join(near[:12])}" if near else ""
        raise RecipeError(f"{path}: no such file{hint}") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: is a folder; a file was expected") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error


def parse(text: str, path: Path, model: type[ModelT]) -> ModelT:
    """The text as `model`; `path` is only named in errors. Raises RecipeError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}:1: expected keys and values, found {_found(data)}")
    lines = dict(_lines(root, (), path))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(error, path, lines, data, model))) from None


def line_of(text: str, location: Location) -> int:
    """The line, from 1, of the innermost part of `location` that the YAML text has."""
    lines = dict(_lines(yaml.compose(text, Loader=yaml.SafeLoader), (), Path()))
    return _nearest(lines, location)


def _nearest(lines: Mapping[Location, int], location: Location) -> int:
    return next((lines[location[:n]] for n in range(len(location), -1, -1) if location[:n] in lines), 1)


def _lines(
    node: yaml.Node | None, at: Location, path: Path, above: tuple[yaml.Node, ...] = ()
) -> Iterator[tuple[Location, int]]:
    """Every location of the document with its line, from 1. Raises RecipeError on a key given twice, and on an alias for
    something that it stands in."""
    if node is None:
        return
    if any(node is outer for outer in above):
        raise RecipeError(
            f"{path}:{node.start_mark.line + 1}: {_dotted(at)}: an alias for what it stands in; write it out"
        )
    above = (*above, node)
    yield at, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key_node, value in node.value:
            key = key_node.value
            if key in seen:
                raise RecipeError(
                    f"{path}:{key_node.start_mark.line + 1}: {_dotted((*at, key))}: given twice; keep one"
                )
            seen.add(key)
            yield from _lines(value, (*at, key), path, above)
            yield (*at, key), key_node.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*at, index), path, above)


def _dotted(location: Location) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


def _explain(
    error: ValidationError, path: Path, lines: Mapping[Location, int], data: Any, model: type[BaseModel]
) -> Iterator[str]:
    schema = model.model_json_schema()
    for item in error.errors(include_url=False):
        if item["type"] == "extra_forbidden":
            location, holders = _place(item["loc"][:-1], schema, data)
            location = (*location, item["loc"][-1])
            known = sorted({key for holder in holders for key in holder.get("properties", {})})
            close = difflib.get_close_matches(str(location[-1]), known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            what = (
                f"unknown key{meant} Known here: {', '.join(known)}"
                if meant
                else f"unknown key; known here: {', '.join(known)}"
            )
        elif item["loc"][-1:] == ("[key]",):
            location, _ = _place(item["loc"][:-2], schema, data)
            if isinstance(item["input"], str):
                location = (*location, item["input"])
                what = f"this key is not of the form wanted here: {item['msg'][:1].lower()}{item['msg'][1:]}"
            else:
                what = f"YAML reads one of these keys as {item['input']!r}, which is no text; put that key in quotes"
        else:
            location, _ = _place(item["loc"], schema, data)
            if item["type"] == "missing":
                what = "missing; it must be given"
            elif item["type"] in ("model_type", "model_attributes_type", "dict_type"):
                what = f"expected keys and values, found {_found(item['input'])}"
            else:
                message = item["msg"].removeprefix("Value error, ")
                what = f"{message[:1].lower()}{message[1:]}"
                if not isinstance(item["input"], dict | list):
                    what += f"; found {item['input']!r}"
        yield f"{path}:{_nearest(lines, location)}: {_dotted(location) or 'file'}: {what}"


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    return type(value).__name__ if isinstance(value, dict | list) else repr(value)


def _place(loc: Location, schema: dict[str, Any], data: Any) -> tuple[Location, list[dict[str, Any]]]:
    """Where a pydantic location stands in the document, and the schemas that may hold there.

    pydantic writes the tag of a union into the location, which is no key of the document and may even be spelt like one;
    only a walk along the JSON schema tells them apart.
    """
    definitions = schema.get("$defs", {})

    def options(node: dict[str, Any]) -> list[dict[str, Any]]:
        if "$ref" in node:
            name = node["$ref"].rsplit("/", 1)[1]
            return [{"name": name} | option for option in options(definitions[name])]
        members = [*node.get("anyOf", []), *node.get("oneOf", []), *node.get("allOf", [])]
        found = [option for member in members for option in options(member) if option.get("type") != "null"]
        return found or [node]

    def has_tag(option: dict[str, Any], tag: str | int) -> bool:
        return option.get("name") == tag or any(p.get("const") == tag for p in option.get("properties", {}).values())

    kept: list[str | int] = []
    nodes = options(schema)
    for position, part in enumerate(loc):
        if len(nodes) > 1:
            nodes = [node for node in nodes if has_tag(node, part)] or nodes
            continue
        node = nodes[0]
        inside = part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))
        if not (inside or position == len(loc) - 1):
            continue
        kept.append(part)
        data = data[part] if inside else None
        below = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
        below = below or node.get("additionalProperties")
        nodes = options(below) if isinstance(below, dict) else [{}]
    return tuple(kept), nodes
