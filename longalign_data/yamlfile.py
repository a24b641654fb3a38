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
        raise RecipeError(f"{path}: is a folder; a YAML file was expected") from None
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
        raise RecipeError(f"{path}:1: expected keys and values, found {type(data).__name__}")
    lines = dict(_lines(root, (), path))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(error, path, lines, data, model))) from None


def _lines(node: yaml.Node | None, at: Location, path: Path) -> Iterator[tuple[Location, int]]:
    """Every location of the document with its line, from 1. Raises RecipeError on a key given twice."""
    if node is None:
        return
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
            yield from _lines(value, (*at, key), path)
            yield (*at, key), key_node.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*at, index), path)


def _dotted(location: Location) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


def _explain(
    error: ValidationError, path: Path, lines: Mapping[Location, int], data: Any, model: type[BaseModel]
) -> Iterator[str]:
    for item in error.errors(include_url=False):
        location = _in_document(item["loc"], data)
        line = next((lines[location[:n]] for n in range(len(location), -1, -1) if location[:n] in lines), 1)
        if item["type"] == "extra_forbidden":
            known = _known_keys(model, item["loc"][:-1])
            close = difflib.get_close_matches(str(location[-1]), known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            what = (
                f"unknown key{meant} Known here: {', '.join(known)}"
                if meant
                else f"unknown key; known here: {', '.join(known)}"
            )
        elif item["type"] == "missing":
            what = "missing; it must be given"
        else:
            message = item["msg"].removeprefix("Value error, ")
            what = f"{message[:1].lower()}{message[1:]}"
            if not isinstance(item["input"], dict | list):
                what += f"; found {item['input']!r}"
        yield f"{path}:{line}: {_dotted(location) or 'file'}: {what}"


def _in_document(loc: Location, data: Any) -> Location:
    """pydantic puts the tag of a union into the location; keep only the parts that exist in the document (and the last,
    which may be the missing key)."""
    kept: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if inside:
            data = data[part]
            kept.append(part)
        elif last:
            kept.append(part)
    return tuple(kept)


def _known_keys(model: type[BaseModel], loc: Location) -> list[str]:
    """The keys that the model at `loc` knows, sorted; found through the JSON schema, which resolves unions and aliases."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})

    def resolve(node: dict[str, Any]) -> list[dict[str, Any]]:
        if "$ref" in node:
            return resolve(definitions[node["$ref"].rsplit("/", 1)[1]])
        options = [*node.get("anyOf", []), *node.get("oneOf", []), *node.get("allOf", [])]
        return [found for option in options for found in resolve(option)] or [node]

    nodes = resolve(schema)
    for part in loc:
        # A union puts its tag into the location: it is no key of the document, but the constant of one of the options.
        tagged = [
            node for node in nodes if any(part == prop.get("const") for prop in node.get("properties", {}).values())
        ]
        if tagged and len(nodes) > 1:
            nodes = tagged
            continue
        following: list[dict[str, Any]] = []
        for node in nodes:
            if isinstance(part, int) and isinstance(node.get("items"), dict):
                following += resolve(node["items"])
            elif part in node.get("properties", {}):
                following += resolve(node["properties"][part])
            elif isinstance(node.get("additionalProperties"), dict):
                following += resolve(node["additionalProperties"])
        nodes = following or nodes
    return sorted({key for node in nodes for key in node.get("properties", {})})
