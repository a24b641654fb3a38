"""Papers as they are really written: what a reader of the PDF sees stands in the text, and what TeX alone reads does not."""

import unicodedata
from pathlib import Path

import pytest

from longalign_data.catalog import load_card
from longalign_data.recipe import PlacedSource
from longalign_data.sources.readers import arxiv
from longalign_data.sources.readers.tex import TexError, source_text
from longalign_data.sources.readers.tex_arguments import NO_WORDS
from longalign_data.sources.readers.tex_words import NAMES, SIGNS, WORDS
from longalign_data.sources.reading import RawDocument, RawReject
from tests.fixtures import corpora

INLINE = arxiv._inline()

NOT_SAID = {
    "setlength", "addlength", "setcounter", "addcounter", "definecolor", "providecolor", "colorlet", "color", "pagecolor",
    "boxframe", "rowcolors", "selectlanguage", "documentclass", "usepackage", "RequirePackage", "hypersetup",
    "newcommand", "renewcommand", "providecommand", "newenvironment", "renewenvironment", "provideenvironment",
    "DeclareMathOperator", "hspace", "vspace", "input", "include", "includegraphics", "bibliography", "label",
    "hphantom", "vphantom", "defcitealias", "author", "date", "pagagraph",
}  # fmt: skip
"""Commands of pylatexenc's table whose arguments no reader of the paper sees where they stand."""

ALL_BUT_FIRST = {"textcolor", "colorbox", "fcolorbox", "texorpdfstring"}
"""Commands of which the last argument is seen."""


def text_of(body: str, preamble: str = "", **files: str) -> str:
    main = rf"\documentclass{{article}}{preamble}\begin{{document}}{body}\end{{document}}"
    others = {name.replace("_", "."): text for name, text in files.items()}
    return source_text({"main.tex": main, **others}, INLINE)[1]


def with_arguments() -> list[tuple[str, int]]:
    """(name, braced arguments) of each command that pylatexenc's walker takes arguments for."""
    from pylatexenc.latexwalker import get_default_latex_context_db

    table = get_default_latex_context_db()
    specs = [spec for category in table.categories() for spec in table.d[category]["macros"].values()]
    found = {spec.macroname: (getattr(spec.args_parser, "argspec", None) or "").count("{") for spec in specs}
    return sorted((name, count) for name, count in found.items() if count and name.isalpha() and name != "verb")


@pytest.mark.parametrize(("name", "count"), with_arguments())
def test_every_command_whose_argument_is_prose_keeps_its_words(name: str, count: int) -> None:
    words = [f"word{'abcdefg'[n]}" for n in range(count)]
    text = text_of(f"Before \\{name}{''.join(f'{{{word}}}' for word in words)} after. \\o{{}} last")
    assert "ø last" in text
    if name in NOT_SAID:
        assert not [word for word in words if word in text]
    else:
        seen = words[-1:] if name in ALL_BUT_FIRST else words
        letters = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
        assert all(word in letters for word in seen), text
        assert [word for word in words if word not in seen and word in text] == []


@pytest.mark.parametrize("name", sorted({**SIGNS, **NAMES}))
def test_every_sign_of_the_table_says_its_own(name: str) -> None:
    text = text_of(f"a\\{name}{{}}b \\texttt{{\\{name}}}")
    sign = {**SIGNS, **NAMES}[name]
    assert text == f"a{sign}b {sign}".rstrip()


@pytest.mark.parametrize("name", sorted(WORDS))
def test_every_entry_of_the_table_of_words_shows_each_argument_in_braces(name: str) -> None:
    words = [f"word{'abcd'[n]}" for n in range(WORDS[name][0].count("{"))]
    assert all(word in text_of(f"\\{name}{''.join(f'{{{word}}}' for word in words)}") for word in words)


@pytest.mark.parametrize("name", sorted(NO_WORDS.keys() - {"title"}))
def test_every_argument_that_is_no_text_is_gone_and_what_follows_stays(name: str) -> None:
    shapes = {"*": "*", "[": "[t, a=1]", "(": "(lr)", "{": "{3.5cm plus {\\foo} 2}", "d": " -1.5ex plus 1fil"}
    arguments = "".join(shapes[sign] for sign in NO_WORDS[name])
    ends = f"\\end{{{name.removeprefix('begin{')}" if name.startswith("begin") else ""
    kept = text_of(f"Before \\{name}{arguments}{{words}} after{ends}")
    assert kept.split() == ["Before", "words", "after"]
    mandatory = "".join(shapes[sign] for sign in NO_WORDS[name] if sign in "{d")
    assert text_of(f"Before \\{name}{mandatory} words after{ends}").split() == ["Before", "words", "after"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (r"We use \texttt{train\_v2.py}, \mbox{GPT-4} (p \textless 0.05) and \textsf{vLLM}.",
         "We use train_v2.py, GPT-4 (p <0.05) and vLLM."),
        (r"In \LaTeX and \TeX{}, \eg this, \ie, that: \S 3, \SI{5}{\kilo\metre\per\second}, \SI{10}{GB}, H\textsubscript{2}O",
         "In LaTeX and TeX, e.g. this, i.e., that: §3, 5 km/s, 10 GB, H_2O"),
        (r"data~set hy\-phen\-ated 5\,km \ding{51}\ding{55} \href[pdf]{http://a}{the \emph{words}}",
         "data set hyphenated 5 km ✓✗ the words"),
        (r"\url{http://a.b/~c_1?d=5%20} \verb|~/a^b| x\textasciitilde{}y", "<http://a.b/~c_1?d=5%20> ~/a^b x~y"),
        (r"\For{i in n}{do it} \eIf{a}{b}{c}", "for i in n do do it abc"),
        (r"Written on \today{} by us.", "Written on by us."),
        (r"As \S\ref{sec:method} shows, Fig.~\ref{fig:a_b}, \quad\cref{a,b} and \it\ref{z}.",
         "As §sec:method shows, Fig. fig:a_b, a,b and z."),
        (r"A group\index{group!abelian} is abelian\index[n]{abelian|see{group}}\glossary{x}\addcontentsline{toc}{part}{X}.",
         "A group is abelian."),
        ("\\begin{tabular}{l|p{3cm}>{\\bfseries}c@{\\hspace{1em}}}\\toprule\n"
         "\\multicolumn{2}{c|}{both} & \\multirow{2}*{Model} \\\\\n"
         "\\cmidrule(lr){1-2}\n\\rowcolor{gray!10} 1 & \\textbf{2} & \\cellcolor[gray]{0.9}3\\\\[2pt] \\bottomrule\\end{tabular}",
         "both | Model \n1 | 2 | 3"),
        (r"\begin{minipage}[t]{0.5\textwidth}left\end{minipage}\begin{CJK*}{UTF8}{gbsn}中文\end{CJK*}", "left\n\n中文"),
        (r"\newtheorem{satz}{Satz}\begin{satz}[Hahn--Banach] It holds. \end{satz}\begin{figure}[t]\caption{C}\end{figure}",
         "(Hahn–Banach) It holds.\n\nFigure: C"),
        ("\\begin{algorithmic}[1]\n\\Require $n$\n\\For{$i < n$}\n\\State $s \\gets s + i$ \\Comment{sum}\n"
         "\\EndFor\n\\State \\Return $s$\n\\end{algorithmic}",
         "Require: $n$\nfor $i < n$ do \n$s \\gets s + i$ // sum\nend for\nreturn $s$"),
        (r"A \parencite{a, b}, \citet*{c}, \autocite[p. 3]{d}, \nocite{e} \citetext{see f}", "A [a, b], [c], [d], (see f)"),
        (r"\setlength\tabcolsep{3pt}\setlength{\parskip}{1em}\vskip 3pt plus 1fil Text\kern-0.1em ends", "Text ends"),
        (r"\begin{figure}[t]\begin{subfigure}[b]{0.5\textwidth}\includegraphics{a}\caption{Panel \emph{a}.}\end{subfigure}"
         r"\begin{minipage}{3cm}\subcaption{Panel b.}\end{minipage}\caption[Short]{The whole.}\label{f}\end{figure} After.",
         "Figure: Panel a.\nPanel b.\nThe whole.\n\nAfter."),
        (r"\begin{figure*}\captionof{figure}{One.}\caption*{Two.}\subcaptionbox{Three.}{x}\end{figure*}\begin{figure}x\end{figure}y",
         "Figure: One.\nTwo.\nThree.\n\ny"),
        (r"\begin{figure}\subfloat[Panel $x_{[0]}$ {[a]}.\label{a}]{\includegraphics[width=3cm]{a}}"
         r"\subfigure[Short][Panel \emph{b}.]{x}\subfloat{c}\subfigure[]{d}\subfloat[open \caption{All.}\end{figure} After.",
         "Figure: Panel $x_{[0]}$ [a].\nPanel b.\nAll.\n\nAfter."),
        (r"Before. \captionof{figure}{Free \emph{one}.} \begin{center}\captionof*{table}[Short]{A table.}\end{center} After.",
         "Before.\n\nFigure: Free one.\n\nA table.\n After."),
        (r"\begin{sidewaysfigure}x\caption{Turned.}\end{sidewaysfigure}\begin{SCfigure}[1.0][h]x\caption{Beside.}\end{SCfigure}",
         "Figure: Turned.\n\nFigure: Beside."),
        (r"\begin{subfigure}{0.5\textwidth}alone\end{subfigure}", "alone"),
        (r"So \begin{IEEEeqnarray}{rCl}a&=&b\end{IEEEeqnarray} is \mintinline{python}{a == b}",
         r"So \begin{IEEEeqnarray}{rCl}a&=&b\end{IEEEeqnarray} is a == b"),
        (r"\begin{frontmatter}\title[Short]{Long}\author[a,b]{J. {\'E}. Doe\corref{c}}\ead{x.y}\affil[a]{Here}\cortext[c]{Me}"
         r"\begin{abstract}Short.\end{abstract}\end{frontmatter}\section{One} Text.",
         "# Long\n\nHere\n\n## Abstract\n\nShort.\n\n## One\n\nText."),
        ("\\baselineskip=24pt One. \\parindent 0pt\\parskip=1.5\\normalbaselineskip \\advance\\hsize by -2truecm Two.\n\\tolerance=1000 "
         r"\looseness-1 Three, \hspace{-\tabcolsep}\rule{.5\textwidth}{1pt} in \the\textwidth, 5 cm.", "One. Two.\n Three, in , 5 cm."),
        ("A\\vskip\\parskip\n2.5 cm tall trees. \\vskip-\\baselineskip\n3 mm thick. \\hskip -.5\\parindent 2 in. \\kern\\fboxsep 5 mm. "
         "\\leftskip\\parindent 6 mm. \\advance\\hsize by -\\parindent 7 mm. \\vskip\\parskip\\parindent 0pt B \\parskip\n8 cm.",
         "A\n2.5 cm tall trees. \n3 mm thick. 2 in. 5 mm. 6 mm. 7 mm. B 8 cm."),
        ("We\n\\index{we!\\emph{us}}\n  \\label{a}\\nocite{b}\nwrite.\n\\index{c}\n\nThen\n\n\\label{d}\nrest.", "We\nwrite.\n\nThen\n\nrest."),
        (r"\newacronym[plural=x]{cnn}{CNN}{network}\acrodef{a}[b]{c}\lstinputlisting[language=C]{a.c}\inputminted{c}{a.c} A.\orcid{0000-1}",
         "A."),
        (r"\resizebox{\columnwidth}{!}{\textbf{wide}} \todo[inline]{fix {this}}kept \hyperref[sec:a]{Section A}",
         "wide kept Section A"),
    ],
)  # fmt: skip
def test_what_papers_are_full_of_reads_as_in_print(body: str, text: str) -> None:
    assert text_of(body) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (r"Shown. \iffalse Hidden \emph{x} \ifx\a\b deep \else deeper \fi still \fi After.", "Shown. After."),
        (r"Shown.\if0 Hidden \else{} Other.\fi{} \if00 Yes.\fi{}\if 01 No.\fi{} \if0{a}\fi", "Shown. Other. Yes. 0a"),
        ("One.\n\\if0\nHidden.\n\\fi\nTwo.", "One.\nTwo."),
        (r"\iffalse no \else yes\fi{} \iftrue yes \else no \fi end", "yes yes end"),
        (r"\newif\ifdraft \ifdraft draft\else final\fi, \drafttrue\ifdraft draft\else final\fi", "final, draft"),
        (r"\let\iflong\iffalse a\iflong b\fi c", "a c"),
        (r"\newif\ifdraft\newcommand{\note}[1]{\ifdraft(#1)\fi}a\note{x} \drafttrue c\note{y}", "a c(y)"),
        (r"\ifx\p\q one\else{} two\fi", "one two"),
        (r"a $x \iff y$ \iffalse b \iff c \fi d", r"a $x \iff y$ d"),
        (r"a \iffalse never closed, so kept", "a never closed, so kept"),
        (r"\iffalse \newif\ifx \fi \iffalse \ificcvfinal a \fi b\fi c", "c"),
        (r"\fi \else a", "a"),
        ("one\n\\iffalse\nnever\n\\fi\ntwo\\iftrue\nthree\\fi\nfour\n\n\\iffalse x\\fi\n\nfive", "one\ntwo\nthree\nfour\n\nfive"),
    ],
)  # fmt: skip
def test_branches_that_are_not_taken_are_no_text(body: str, text: str) -> None:
    assert text_of(body) == text


def test_macros_of_the_submissions_own_packages_and_class_are_resolved() -> None:
    preamble = (
        r"\usepackage{amsmath,mymacros}\RequirePackage[a,b]{other}\NewDocumentCommand{\xname}{m O{q}}{never}"
        r"\DeclareDocumentCommand\both{O{the} m}{#1 #2}\DeclareRobustCommand{\rob}{ROBUST}\newcommand{\ours}{Main}"
    )
    sty = (
        "% \\newcommand{\\gone}{gone}\n\\ProvidesPackage{mymacros}\\RequirePackage{deep}\\newcommand{\\method}{LongAlign\\xspace}\n"
        "\\newcommand{\\ours}{Package}\\renewcommand{\\section}{\\@startsection{section}}\\def\\title#1{\\gdef\\@title{#1}}"
        "\\newcommand{\\cite}[1]{(#1)!}\\def\\internal{\\let\\x@y\\relax}"
    )
    text = text_of(
        r"\section{One} We call it \method and \deepname: \both{pair}, \both[a]{pair}, \rob, \ours{} \cite{k}. "
        r"\internal\absent x",
        preamble,
        mymacros_sty=sty,
        deep_sty=r"\RequirePackage{mymacros}\newcommand*\deepname{Deep}",
        another_cls=r"\newcommand{\absent}{wrong}",
    )
    assert text == "## One\n\nWe call it LongAlign and Deep: the pair, a pair, ROBUST, Main [k]. x"


def test_what_a_papers_title_is_thanked_for_is_no_part_of_it() -> None:
    title = r"On \emph{Long} Texts\footnote{At \url{x.y}.} \\ and {Short}\thanks[1]{By a \textbf{grant\thanks{x}}.} Ones\thanks{open"
    files = {
        "a.tex": rf"\documentclass{{a}}\title{{{title}}}}}\begin{{document}}Text.\footnote{{A note.}}\end{{document}}"
    }
    assert source_text(files, INLINE)[:2] == (
        "On Long Texts and Short Ones",
        "# On Long Texts and Short Ones\n\nText.[A note.]",
    )


def test_a_switch_set_where_nothing_says_the_outcome_is_not_known() -> None:
    body = r"\ifx\foo\undefined\longtrue\else\longfalse\fi A. \iflong Long.\fi B. \shortfalse\ifshort Short.\fi"
    assert text_of(body, r"\newif\iflong\newif\ifshort").split() == ["A.", "Long.B."]


def test_a_group_behind_an_included_file_is_text() -> None:
    body = "\\input{intro}\n{\\bf Note} these words. \\subimport{parts}{one}"
    files = {"main.tex": rf"\documentclass{{a}}\begin{{document}}{body}\end{{document}}"}
    _, text, missing = source_text(files | {"intro.tex": "Intro.", "parts/one.tex": "One."}, INLINE)
    assert (text.split(), missing) == (["Intro.", "Note", "these", "words.", "One."], ())


def submission_text(tmp_path: Path, files: dict[str, bytes]) -> tuple[str, list[RawReject]]:
    """The text that the reader makes of a submission in a bulk tar, and what it rejects of it."""
    members = corpora.tar_bytes(list(files.items()), "w:gz")
    (tmp_path / "arXiv_src_2301_001.tar").write_bytes(corpora.tar_bytes([("2301/2301.00001.gz", members)]))
    placed = PlacedSource(card=load_card("arxiv", relative_to=tmp_path)[0], path=str(tmp_path))
    records = [record for partition in arxiv.partitions(placed) for record in arxiv.read(partition)]
    (document,) = (record for record in records if isinstance(record, RawDocument))
    return document.text, [record for record in records if isinstance(record, RawReject)]


def whole(body: str, preamble: str = "") -> str:
    return f"\\documentclass{{article}}\n{preamble}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"


@pytest.mark.parametrize(
    ("declaration", "codec", "words"),
    [
        ("", "latin-1", "Poincaré prouve"),
        (r"\usepackage[T1]{fontenc}\usepackage[latin2]{inputenc}", "latin2", "Paul Erdős"),
        (r"\usepackage[cp1251]{inputenc} % \usepackage[latin1]{inputenc}", "cp1251", "Теорема о простых числах"),
        ("\\usepackage[ascii,\n koi8-r]\n{inputenc}", "koi8-r", "Теорема о простых числах"),
        (r"\usepackage[applemac]{inputenc}", "mac_roman", "Poincaré prouve"),
        (r"\usepackage[GBK]{ctex}", "gbk", "定理一成立"),
        (r"\usepackage[martian]{inputenc}", "latin-1", "Poincaré prouve"),
    ],
)
def test_a_paper_is_read_in_the_encoding_that_it_declares(
    tmp_path: Path, declaration: str, codec: str, words: str
) -> None:
    # The part has no declaration of its own.
    files = {"paper.tex": whole(r"\input{part}", declaration).encode(codec), "part.tex": f"{words}.".encode(codec)}
    assert submission_text(tmp_path, files) == (f"{words}.", [])


def test_a_paper_in_the_environment_of_cjk_is_read_in_its_encoding(tmp_path: Path) -> None:
    body = r"\begin{CJK*}{GBK}{song}定理一成立。\end{CJK*}"
    assert submission_text(tmp_path, {"a.tex": whole(body).encode("gbk")}) == ("定理一成立。", [])


@pytest.mark.parametrize("declaration", ["", r"\usepackage[latin1]{inputenc}"])
def test_a_name_in_the_environment_of_cjk_says_nothing_of_the_letters_around_it(
    tmp_path: Path, declaration: str
) -> None:
    name = rb"\begin{CJK*}{GBK}{song}Li\end{CJK*}"
    files = {"a.tex": whole("NAME, Schrödinger, Müller.", declaration).encode("latin-1").replace(b"NAME", name)}
    files["b.tex"] = whole(r"\begin{CJK}{GBK}{song}x\end{CJK}").encode()
    text, rejects = submission_text(tmp_path, files)
    assert text.replace("\n", "") == "Li, Schrödinger, Müller."
    assert [reject.reason for reject in rejects] == ["second-document"]


def test_a_file_that_a_paper_does_not_use_says_nothing_of_its_encoding(tmp_path: Path) -> None:
    files = {
        "paper.tex": whole(r"Poincaré. \input{part}").encode("latin-1"),
        "part.tex": "Müller.".encode("latin-1"),
        "old/unused.tex": rb"\usepackage[cp1251]{inputenc}",
    }
    assert submission_text(tmp_path, files)[0].split() == ["Poincaré.", "Müller."]
    files["paper.tex"] = whole(r"Теорема. \input{part}", r"\input{old/unused}").encode("cp1251")
    files["part.tex"] = "Лемма.".encode("cp1251")
    assert submission_text(tmp_path, files)[0].split() == ["Теорема.", "Лемма."]
    files["paper.tex"] = whole(r"Теорема. \input{part}", r"\newcommand\dir{old}\input{\dir/unused}").encode("cp1251")
    assert submission_text(tmp_path, files)[0].split() == ["Теорема.", "Лемма."]


def test_one_damaged_byte_does_not_send_a_paper_in_utf8_into_another_encoding(tmp_path: Path) -> None:
    body = "Erdős, Poincaré, 定理. Caf\udce9. % na\udcefve"
    for declaration in ("", r"\usepackage[latin1]{inputenc}", r"\usepackage[utf8]{inputenc}"):
        source = whole(body, declaration).encode("utf-8", "surrogateescape")
        assert submission_text(tmp_path, {"a.tex": source}) == ("Erdős, Poincaré, 定理. Café.", [])


def test_parts_in_several_encodings_are_each_read_in_their_own(tmp_path: Path) -> None:
    main = whole("Erdős. \\input{old}", r"\usepackage[utf8]{inputenc}").encode()
    assert submission_text(tmp_path, {"a.tex": main, "old.tex": "Café.".encode("latin-1")})[0].split() == [
        "Erdős.",
        "Café.",
    ]
    named = r"\inputencoding{x}\RequirePackage[cp1251]{inputenc} Теорема.".encode("cp1251")
    text, _ = submission_text(tmp_path, {"a.tex": main, "old.tex": named})
    assert "Erdős." in text
    assert "Теорема." in text


def test_what_is_typed_keeps_its_signs() -> None:
    body = r"\verb|--help| \texttt{--help ''} \url{http://x.y/a--b~c} dash -- and ``q''"
    assert text_of(body) == "--help --help '' <http://x.y/a--b~c> dash \u2013 and \u201cq\u201d"


def test_macros_are_refused_before_they_grow() -> None:
    with pytest.raises(TexError, match="macros grow beyond"):
        text_of(rf"\m{{{'a' * 50_000}}}", rf"\newcommand{{\m}}[1]{{{'#1' * 20_000}}}")


def test_packages_are_found_beside_a_paper_that_stands_in_a_folder() -> None:
    files = {
        "paper/main.tex": r"\documentclass{own}\usepackage{sty/a}\begin{document}\one, \two\end{document}",
        "paper/own.cls": r"\def\one{One}\newcommand{\two}{never}",
        "sty/a.sty": r"\newcommand{\two}{\be x \ee}\def\be{\begin{equation}}\def\ee{\end{equation}}",
    }
    assert source_text(files, INLINE)[1] == r"One, \begin{equation} x \end{equation}"


def test_a_class_of_the_submission_is_no_paper_of_its_own() -> None:
    files = {"my.cls": r"\documentclass{article}\begin{document}of the class\end{document}" * 9, "a.tex": "no document"}
    with pytest.raises(TexError, match="no file has"):
        source_text(files, INLINE)


def test_listings_are_kept_as_they_are_written() -> None:
    code = '\\def\\x{$5 & 6}\n\n    printf("a\\n%d", x); % kept\n# \\iffalse'
    for begin, end in (("lstlisting}[language=C]", "lstlisting"), ("verbatim}", "verbatim"), ("minted}{c}", "minted")):
        text = text_of(f"Code:\n\\begin{{{begin}\n{code}\n\\end{{{end}}}\nAfter \\x.")
        assert text == f"Code:\n\n{code}\n\nAfter ."
    assert text_of(r"\begin{verbatim} a \emph{b} $c$") == "a b $c$"


def test_the_main_file_is_the_one_with_most_words_its_parts_counted() -> None:
    whole = r"\documentclass{article}\begin{document}%s\end{document}"
    files = {
        "root.tex": whole % r"\input{parts/one}\subimport{parts/}{two}",
        "parts/one.tex": "First words. " * 30,
        "parts/two.tex": r"Second words.\input{three}",
        "parts/three.tex": "Third words.",
        "letter.tex": whole % ("Dear editor, we thank you. " * 10),
        "versions/old.tex": whole % ("Old words. " * 200),
    }
    _, text, missing = source_text(files, INLINE)
    assert text.split()[:2] == ["First", "words."]
    assert text.endswith("Third words.")
    assert missing == ()


@pytest.mark.parametrize(
    "source",
    [
        r"\begin{verbatim}" * 60_000,
        r"\begin{verbatim}\end{lstlisting}" * 30_000,
        r"\iffalse " * 100_000,
        r"\iftrue\else\fi" * 60_000,
        r"\newif\ifa\atrue\ifa" * 40_000,
        r"\multicolumn{2}{c}{" * 30_000,
        r"\multicolumn{" * 30_000,
        r"\parbox[" * 60_000,
        r"\NewDocumentCommand\a{O{" * 20_000,
        r"\NewDocumentCommand\a{" + "m " * 200_000,
        r"\usepackage{a}" * 60_000,
        r"\usepackage{" + "a," * 400_000,
        r"\vskip " + "1" * 400_000,
        r"\parskip " + "1" * 400_000,
        r"\parskip-" + " " * 400_000,
        r"\parskip" + " " * 400_000 + "x",
        "x\n\\label{" * 60_000,
        "x\n\\label{a}" * 60_000,
        "x\n" + "\\label{a{b}}" * 60_000,
        r"\begin{theorem}[" * 40_000,
        r"\newcommand\a" + " " * 100_000 + "x",
        r"\NewDocumentCommand\a" + " " * 100_000 + "x",
        r"\vskip" + " " * 100_000 + "x",
        r"\let\ifa" + " " * 100_000 + "x",
        r"\section" + " " * 100_000 + "x",
        r"\section{" * 5_000 + "}" * 5_000,
        r"\begin{figure}" + r"\caption{" * 40_000 + r"\end{figure}",
        "$$a" + " " * 1_000_000 + "b$$",
        "$$a" + "\n" * 1_000_000 + "b$$",
    ],
)
def test_commands_that_nothing_closes_take_time_by_their_number_alone(source: str) -> None:
    files = {"main.tex": rf"\documentclass{{a}}\begin{{document}}{source}", "a.sty": r"\RequirePackage{a}" * 1000}
    assert len(source_text(files, lambda paragraph: paragraph)[1]) <= len(source)
