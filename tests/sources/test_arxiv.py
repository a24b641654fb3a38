"""Submissions to arXiv: files merged, macros and comments resolved, within bounds."""

from contextlib import suppress
from pathlib import Path

import pytest

from longalign_data.sources.readers import (
    arxiv,
)
from longalign_data.sources.readers.tex import TexError, source_text
from longalign_data.sources.reading import RawDocument, RawReject
from tests.fixtures import corpora
from tests.sources.reads import everything, placed


def same(paragraph: str) -> str:
    return paragraph


def test_files_are_merged_and_macros_and_comments_resolved() -> None:
    files = {
        "main.tex": "\\documentclass{a}\\newcommand{\\R}{\\mathbb{R}}\\newcommand{\\n}[2][d]{#1-#2}\\def\\p#1{(#1)}\\title{T}\n"
        "\\begin{document}\\input{a}\\include{sub/b}\nSee~\\cite{x, y}. 5\\% % gone\n\\end{document}",
        "a.tex": "\\section{One} $x \\in \\R$ and \\n{q} \\n[w]{q}",
        "sub/b.tex": "\\p{z} \\input{a}",
        "other.tex": "\\documentclass{a} not main",
    }
    title, text, missing = source_text(files, same)
    assert missing == ()
    assert title == "T"
    assert "## One" in text
    assert "$x \\in \\mathbb{R}$" in text
    assert "d-q w-q" in text
    assert "(z)" in text
    assert "[x, y]" in text
    assert "gone" not in text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"See \url{http://a/b%20c}, \href{x%20y}{words} and \verb|5%^{\$_|: 3\% % gone", r"See <http://a/b%20c>, words and 5%^{\$_: 3%"),
        ("\\begin{lstlisting}\nx = 5 % 3\n\\end{lstlisting}", "x = 5 % 3"),
        ("one % gone\n\ntwo % gone\n  three %\n% gone\n\nfour", "one\n\ntwo three\n\nfour"),
        (r"a \bibliographystyle{plain}\bibliography{refs}\includeonly{chap}\includegraphics[width=1]{f}b", "a b"),
        ("\\begin{tabular}{l}a & b \\\\& c\\end{tabular}\n\n\\begin{lstlisting}\nif (a && b) c;\n\\end{lstlisting}", "a | b \n | c\n\nif (a && b) c;"),
        (r"\subimport{sec/}{b} \import{other/}{q}", "B \nC\n\nD \nE\n\nQ"),
        (r"\texttt{train.py}, \mbox{GPT-4} and \textsf{a}\textup{b}\textmd{c} (p \textless{} 0.05, \S{} 3, \LaTeX)", "train.py, GPT-4 and abc (p < 0.05, § 3, LaTeX)"),
        (r"On \iffalse off \ifx a b \else c \fi d \newif\ifdraft $\iff$ \fi on \iffalse no \else yes\fi. \ifx{x}on \fi", "On on yes. xon"),
        (r"on \iffalse that nothing ends", "on that nothing ends"),
        ("\\begin{tabular}{lc}\n\\multicolumn{2}{c|}{both} & \\multirow{2}{*}{Model} \\\\\\cline{2-3}\\cmidrule(lr){2-4}(a) & \\multicolumn{1}{p{3cm}}{b}\n\\end{tabular}", "both | Model \n(a) | b"),
        (r"\begin{CJK}{UTF8}{gbsn}in\end{CJK} \begin{minipage}[t]{0.48\textwidth}{\bf small}\end{minipage}", "in\n\nsmall"),
        (r"\resizebox{1cm}{!}{x} \parbox{3cm}{par} \makebox[2cm][l]{box} \scalebox{0.8}{s}", "x par box s"),
        (r"\usepackage{my}\method{} \two{q} \three{a}{b} \robust \page", "LongAlign (q) a-b Strong"),
    ],
)  # fmt: skip
def test_what_looks_like_comments_cells_and_commands_keeps_its_words(source: str, text: str) -> None:
    files = {
        "main.tex": "\\documentclass{a}\\begin{document}\n" + source + "\n\\end{document}",
        "sec/b.tex": r"B \input{c} \subimport{deep}{d}",
        "sec/c.tex": "C",
        "sec/deep/d.tex": r"D \input{e}",
        "sec/deep/e.tex": "E",
        "other/q.tex": "Q",
        "c.tex": "not this one",
        "my.sty": r"\RequirePackage{x,deep}\newcommand{\method}{LongAlign}\def\two#1{(#1)}\newcommand{\page}{\vskip 3cm}",
        "deep.cls": r"\RequirePackage{my}\NewDocumentCommand\three{m +m}{#1-#2}\DeclareRobustCommand{\robust}{Strong}",
    }
    assert source_text(files, arxiv._inline())[1] == text


def test_a_file_that_a_submission_lacks_is_named_beside_its_document(tmp_path: Path) -> None:
    main = (
        "\\documentclass{a}\\input{macros}\\input glyphtounicode\\newcommand{\\where}{sec}\n\\begin{document}\nHere.\n"
        "% \\input{gone}\n\\input{intro} \\include{tables/results.tex} \\input{\\where/proof} \\input{intro}\n"
        "\\input{main.bbl} \\input{x.sty} \\begin{figure}\\input{plot}\\caption{A plot.}\\end{figure}\nThere.\n"
        "\\end{document}\\input{after}"
    )
    submission = corpora.tar_bytes([("main.tex", main.encode()), ("here.tex", b"never asked for")], "w:gz")
    (tmp_path / "a.tar").write_bytes(corpora.tar_bytes([("2301.00001.gz", submission)], "w"))
    document, reject = everything(placed(tmp_path, "arxiv"))
    assert isinstance(document, RawDocument)
    assert document.text.split() == ["Here.", "Figure:", "A", "plot.", "There."]
    assert isinstance(reject, RawReject)
    assert reject.reason == "missing-part"
    assert "\\input of 'intro', 'tables/results.tex', 'sec/proof' was not resolved" in reject.detail


def test_a_supplement_that_the_paper_does_not_include_is_named_beside_it(tmp_path: Path) -> None:
    whole = "\\documentclass{a}\n\\begin{document}%s\\end{document}"
    files = {
        "paper.tex": "\\newcommand\\dir{named}"
        + whole % ("\\input{part}\\input{\\dir/own}\\subfile{child} % \\input{supplement}\n" + "The paper. " * 9),
        "part.tex": "% \\documentclass{a}\\begin{document}\nA part.",
        "named/own.tex": whole % "A part by a macro.",
        "child.tex": (whole % "A child.").replace("{a}", "[paper.tex]{subfiles}"),
        "draft.tex": (whole % "A draft.").replace("{a}", "[paper.tex]{subfiles}"),
        "plot.tex": (whole % "A drawing.").replace("{a}", "[tikz]{standalone}"),
        "macros.tex": "% \\documentclass{a}\n\\begin{document}",
        "supplement.tex": whole % "The proofs.",
        "reply/letter.tex": whole % "Dear editor.",
    }
    submission = corpora.tar_bytes([(name, text.encode()) for name, text in files.items()], "w:gz")
    (tmp_path / "a.tar").write_bytes(corpora.tar_bytes([("2301.00001.gz", submission)], "w"))
    document, reject = everything(placed(tmp_path, "arxiv"))
    assert isinstance(document, RawDocument)
    assert "The paper." in document.text
    assert "A part by a macro." in document.text
    assert "The proofs." not in document.text
    assert isinstance(reject, RawReject)
    assert (reject.reason, reject.source_ref) == ("second-document", document.source_ref)
    assert "2301.00001.gz: 'reply/letter.tex', 'supplement.tex': a document of its own" in reject.detail


def test_a_part_that_shows_a_document_as_an_example_stays_whole() -> None:
    example = "\\documentclass{b}\n\\begin{document}\nHi.\n\\end{document}"
    files = {
        "main.tex": "\\documentclass{a}\\begin{document}\\input{chapter}\\subfile{own}\\subfile{shows} The end.\\end{document}",
        "chapter.tex": f"Before.\\begin{{verbatim}}\n{example}\n\\end{{verbatim}}\nAfter.",
        "own.tex": "\\documentclass{subfiles}\\begin{document}Own.\\begin{verbatim}x\\end{verbatim}More.\\end{document}never",
        "shows.tex": f"\\documentclass{{subfiles}}\\begin{{document}}\\begin{{lstlisting}}[language=TeX]\n{example}\n"
        "\\end{lstlisting}Behind it.\\end{document}\\begin{verbatim}\\end{document}\\end{verbatim}",
    }
    text = source_text(files, same)[1]
    assert text.count(example) == 2
    assert " ".join(text.replace(example, "").split()) == "Before. After. Own. x More. Behind it. The end."


def test_a_macro_in_the_name_of_a_file_is_resolved() -> None:
    files = {
        "paper/main.tex": "\\documentclass{a}\\input{macros}\\newcommand{\\dir}{sections}\\def\\two#1{#1}\\begin{document}"
        "\\input{\\dir/one} \\input{\\dir /two} \\subimport{\\dir/}{\\last} \\input{\\other/x} \\input{\\two/y}\\end{document}",
        "paper/macros.tex": "\\newcommand\\last{three}",
        "paper/sections/one.tex": "One.",
        "paper/sections/two.tex": "Two.",
        "paper/sections/three.tex": "Three.",
    }
    _, text, missing = source_text(files, same)
    assert text.split() == ["One.", "Two.", "Three."]
    assert missing == ("\\other/x", "/y")


@pytest.mark.parametrize(
    "source",
    [
        r"\def\a{\b\b\b\b}\def\b{\c\c\c\c}\def\c{\d\d\d\d}\def\d{\e\e\e\e}\def\e{\f\f\f\f}\def\f{\g\g\g\g}\def\g{\h\h\h\h}"
        r"\def\h{\i\i\i\i}\def\i{\j\j\j\j}\def\j{\k\k\k\k}\def\k{xxxxxxxxx}\a",
        r"\def\a{\a\a\a\a\a\a\a\a}\a",
        r"\input{main}\input{main}",
        "$" * 200_000,
        r"\begin{figure}" * 30_000,
        r"\section{" * 5_000,
        r"\newcommand{\x}[9]{" * 3_000,
        r"\iffalse" * 50_000,
        r"\iffalse\else" * 50_000 + r"\fi" * 50_000,
        r"\multicolumn{" * 20_000,
        r"\multirow[[[{" * 20_000,
    ],
)
def test_tex_that_grows_or_nests_without_end_is_bounded(source: str) -> None:
    files = {"main.tex": "\\documentclass{a}\\begin{document}" + source + "\\end{document}"}
    with suppress(TexError):
        assert len(source_text(files, same)[1]) < 17 << 20
