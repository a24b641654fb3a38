"""Where a card's files are.

In: `path` of a placed source: an absolute file, folder or glob, `python:stdlib` or `python:<package>`. Out: the folder
that all names are relative to, and the files in it, in an order that no file system decides.
"""

import errno
import glob
import importlib.machinery
import importlib.util
import os
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longalign_data.errors import SourceError
from longalign_data.recipe import PlacedSource
from longalign_data.sources.reading import Unit

PYTHON = "python:"
"""How a path begins that names something in the running interpreter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`root` is an absolute folder. `files` are the files that the path names by itself (a file, a glob), relative to the
    root; None when it names the folder. `broken` are the links among them that lead nowhere."""

    root: Path
    files: Sequence[str] | None
    broken: Sequence[str] = ()


def locate(placed: PlacedSource) -> Place:
    """The place of a source. Raises SourceError, saying what was looked for and what to do."""
    path = placed.path
    if path is None:
        raise failed(placed, "path: missing: this source is read from local files", "give `path` in the recipe")
    found = _python(placed, path[len(PYTHON) :]) if path.startswith(PYTHON) else Path(os.path.normpath(path))
    if found.is_file():
        return Place(root=found.parent, files=[found.name])
    if found.is_dir():
        return Place(root=found, files=None)
    if glob.has_magic(path):
        return _globbed(placed, found)
    raise failed(placed, f"{found}: no such file or folder", obtain_hint(placed))


def listed(placed: PlacedSource, suffixes: Sequence[str]) -> tuple[str, list[Unit]]:
    """The root and the files of a source whose format is told by file names: those that the path names, or those with
    one of the suffixes anywhere below the folder, hidden ones excepted. Raises SourceError when there is none."""
    wanted = tuple(suffixes)
    root, units = chosen(placed, lambda file: file.lower().endswith(wanted))
    if not units:
        raise failed(placed, f"{root}: no file ends in {', '.join(suffixes)}", "name the files with a glob")
    return root, units


def chosen(placed: PlacedSource, wanted: Callable[[str], bool]) -> tuple[str, list[Unit]]:
    """The root and, each as a unit, the files that the path names, or those below its folder that are wanted by their
    relative path. A link that leads nowhere is a unit without files, of which `readers.read` makes a reject."""
    place = locate(placed)
    if place.files is not None:
        files = sorted_paths((*place.files, *place.broken))
    else:
        files = sorted_paths(file for file in below(place.root) if wanted(file))
    root = str(place.root)
    return root, [_unit(root, file) for file in files]


def below(root: Path) -> Iterable[str]:
    """Every file below a folder as `walk` gives it, but for hidden ones and those by which Office locks open files (`~$`)."""
    return walk(root, lambda name: name.startswith((".", "~$")))


def broken_link(name: str) -> Unit:
    """What stands for a link that leads nowhere."""
    return Unit(name=storable(name), files=(), size=0)


def _unit(root: str, file: str) -> Unit:
    try:
        return Unit(name=storable(file), files=(file,), size=size_of(root, file))
    except OSError:
        if not leads_nowhere(f"{root}/{file}"):
            raise
        return broken_link(file)


def size_of(root: str, file: str) -> int:
    """The bytes of a file."""
    return os.stat(f"{root}/{file}").st_size  # noqa: PTH116 - a Path costs as much again, for each of many small files


def leads_nowhere(path: str) -> bool:
    """Whether this is a link to nothing, or in a circle."""
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH110, PTH114 - of a string, like its callers


def walk(root: Path, skip: Callable[[str], bool]) -> Iterable[str]:
    """The regular files below a folder, links to files, and links that lead nowhere, as relative paths with `/`, in no
    order. Links to folders are not entered. `skip` is asked about the relative path's last name, of folders and files."""
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if skip(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{folder}{entry.name}/")
                elif leads_to_file(entry) or leads_nowhere(entry.path):
                    yield f"{folder}{entry.name}"


def leads_to_file(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry of a folder is a file or a link to one; links to nothing and in a circle are not."""
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def leads_away(entry: "os.DirEntry[str]", root: str, file: str) -> bool:
    """Whether an entry of a folder that was reached without links is a link that leaves the root. `file` is its path below
    the root."""
    return entry.is_symlink() and leads_outside(root, file)


def sorted_paths(paths: Iterable[str]) -> list[str]:
    """In order of the folders, then the names: what stands in one folder stays together."""
    return sorted(paths, key=lambda path: path.split("/"))


def leads_outside(root: str, file: str) -> bool:
    """Whether the file is reached only through a link that leaves the root."""
    path, climbs = root, False
    for part in file.split("/"):
        path = f"{path}/{part}"
        # To resolve a path asks the system about every folder above the root too, for each file of a large corpus.
        climbs = climbs or part == ".." or os.path.islink(path)  # noqa: PTH114 - a Path for each part costs as much again
    return climbs and not Path(root, file).resolve().is_relative_to(Path(root).resolve())


def storable(name: str) -> str:
    """The name fit for UTF-8: bytes of a file name that are not UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def failed(placed: PlacedSource, what: str, advice: str) -> SourceError:
    """The error of a source that cannot be used."""
    return SourceError(f"source {placed.card.id!r}: {what}; {advice}")


def obtain_hint(placed: PlacedSource) -> str:
    """What to do when a corpus is not there."""
    return placed.card.obtain.strip() if placed.card.obtain else "check `path` in the recipe or the card"


def _globbed(placed: PlacedSource, pattern: Path) -> Place:
    parts = pattern.parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    names = glob.glob(os.path.join(*parts[fixed:]), root_dir=root, recursive=True)  # noqa: PTH118, PTH207 - a Path pattern would follow no `root_dir`
    found = {name.replace(os.sep, "/") for name in names}
    files = sorted_paths(name for name in found if (root / name).is_file())
    broken = sorted_paths(name for name in found if leads_nowhere(f"{root}/{name}"))
    if not files and not broken:
        raise failed(placed, f"{pattern}: this glob matches no file", obtain_hint(placed))
    return Place(root=root, files=files, broken=broken)


def _python(placed: PlacedSource, name: str) -> Path:
    if name == "stdlib":
        return Path(sysconfig.get_path("stdlib"))
    top, *rest = name.split(".")
    # The path finder alone sees the files of modules that the interpreter has frozen; the others see editable installs.
    spec = importlib.machinery.PathFinder.find_spec(top)
    try:
        spec = spec or importlib.util.find_spec(top)
    except ValueError:
        spec = None
    folders = list(spec.submodule_search_locations or []) if spec else []
    advice = "install it into this Python, or give a path"
    if spec is None:
        raise failed(placed, f"python:{name}: this Python has no package {top!r}", advice)
    if len(folders) > 1:
        raise failed(placed, f"python:{name}: {top!r} is spread over {', '.join(folders)}", "give the path of one")
    found = Path(folders[0]) if folders else Path(spec.origin or "built-in")
    if rest:
        below = found.joinpath(*rest)
        found = below if below.is_dir() else below.with_name(f"{below.name}.py")
    if not found.exists():
        raise failed(placed, f"python:{name}: no file or folder of that name ({found})", advice)
    return found.absolute()
