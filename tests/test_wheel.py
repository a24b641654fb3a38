"""An installed wheel carries the cards and recipes that a checkout has beside the package."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built with what is installed and unpacked as an installer would."""
    pytest.importorskip("hatchling", reason="the build backend comes with the dev extra")
    folder = tmp_path_factory.mktemp("wheel")
    program = "import sys\nfrom hatchling.build import build_wheel\nbuild_wheel(sys.argv[1])\n"
    subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_card_and_recipe_is_in_the_wheel_as_it_stands_in_the_checkout(installed: Path) -> None:
    for folder, inside in (("catalog", "_catalog"), ("recipes", "_recipes")):
        files = {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()}
        there = installed / "longalign_data" / inside
        assert files
        assert files == {path.relative_to(there) for path in there.rglob("*") if path.is_file()}
        for file in files:
            assert (there / file).read_bytes() == (ROOT / folder / file).read_bytes()
    assert (installed / "longalign_data" / "py.typed").is_file()
    assert not (installed / "tests").exists()


def test_an_installed_command_finds_its_cards_and_recipes(installed: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); "
                   "from longalign_data.cli.main import main; main()", *arguments]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "wikipedia-zh" in run("catalog")
    found = run("catalog", "show", "wikipedia-zh")
    assert "OpenCC" in found
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); from pathlib import Path\n"
        "from longalign_data.recipe import builtin_recipes, load_recipe\n"
        "print(*builtin_recipes(), load_recipe(Path('quickstart')).recipe.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    *names, loaded = done.stdout.split()
    assert names == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    assert loaded == "quickstart"
