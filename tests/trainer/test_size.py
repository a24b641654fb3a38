"""How much there is to read before a step is trusted."""

import ast
import io
import tokenize
from pathlib import Path

import trainer

FOLDER = Path(trainer.__file__).parent
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def lines_of_code(text: str) -> int:
    """Lines with a token on them, those of docstrings left out."""
    tokens = [found for found in tokenize.generate_tokens(io.StringIO(text).readline) if found.type not in NO_CODE]
    lines = {line for found in tokens for line in range(found.start[0], found.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= {*range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return len(lines)


def test_comments_docstrings_and_blanks_are_no_lines_of_code() -> None:
    assert lines_of_code('"""What\nit is."""\n\nx = (  # one\n    1\n)\n"""Of x."""\n# two\ny = """a\n\nb"""\n') == 6


def test_the_modules_that_hold_the_arithmetic_are_about_a_thousand_lines() -> None:
    """Those that the package's docstring says to read."""
    first = (trainer.__doc__ or "").partition("and these for what surrounds it")[0]
    modules = [line.split()[0] for line in first.splitlines() if line.startswith("    ")]
    assert modules == ["batch", "loss", "attention", "objective", "engine", "probe", "loop"]
    assert sum(lines_of_code((FOLDER / f"{name}.py").read_text(encoding="utf-8")) for name in modules) < 1020
