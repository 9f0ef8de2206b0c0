"""A finished table as LaTeX: a `table` environment to \\input, with booktabs rules."""

from __future__ import annotations

import re
import unicodedata

from alphatune.pages.layout import GridRow, Layout, Piece, lay_out
from alphatune.tables.grid import Grid

_SIGNS = {"overlap": r" $\approx$", "apart": r" $\neq$"}
_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "]": "{]}", "<": "$<$", ">": "$>$", "|": "$|$",
    '"': "''",
    "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "≈": r"$\approx$", "≠": r"$\neq$", "≤": r"$\leq$", "≥": r"$\geq$",
    "→": r"$\rightarrow$", "·": r"$\cdot$", "∞": r"$\infty$", "…": r"\dots{}", "–": "--", "—": "---", "²": "$^2$",
    "°": r"$^\circ$", "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "Δ": r"$\Delta$", "λ": r"$\lambda$",
    "’": "'", "‘": "`", "“": "``", "”": "''",
}  # fmt: skip

# A wide or long table is shrunk to the page; a small one keeps its size.
_FIT = r"""\ifdim\wd0>\textwidth\setbox0=\hbox{\resizebox{\textwidth}{!}{\box0}}\fi
\ifdim\dimexpr\ht0+\dp0\relax>0.75\textheight\setbox0=\hbox{\resizebox{!}{0.75\textheight}{\box0}}\fi
\leavevmode\box0"""


def latex(grid: Grid) -> str:
    """The table with caption, legend and notes; the document must load booktabs and graphicx."""
    layout = lay_out(grid)
    if not grid.lines:
        return _figure(grid, layout)
    left = "ll" if layout.whose else "l"
    columns = left + "r" * (len(grid.columns) + layout.counted)
    head = ["Row", *(["Whose"] if layout.whose else []), *grid.columns, *(["n"] if layout.counted else [])]
    lines = [
        "% needs \\usepackage{booktabs} and \\usepackage{graphicx}",
        r"\begin{table}[tp]",
        r"\centering",
        rf"\caption{{{escape(layout.title)}}}",
        rf"\label{{tab:{_key(grid)}}}",
        r"\footnotesize\setlength{\tabcolsep}{3.5pt}",
        rf"\setbox0=\hbox{{\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        " & ".join([*map(escape, head[: len(left)]), *map(_heading, head[len(left) :])]) + r" \\",
        r"\midrule",
        *_body(layout, len(columns)),
        r"\bottomrule",
        r"\end{tabular}}%",
        _FIT,
        r"\par\smallskip",
        r"\begin{minipage}{\textwidth}\scriptsize\raggedright",
        *(rf"{text}\par" for text in _below(grid, layout)),
        r"\end{minipage}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _figure(grid: Grid, layout: Layout) -> str:
    """A figure without numbers: its pictures with the same caption and notes."""
    lines = [
        "% needs \\usepackage{graphicx} and the PNG files beside it",
        r"\begin{figure}[tp]",
        r"\centering",
        *(rf"\includegraphics[width=\linewidth]{{{stem}.png}}" for stem in grid.pictures),
        rf"\caption{{{escape(layout.title)}}}",
        rf"\label{{fig:{_key(grid)}}}",
        *(rf"{text}\par" for text in _below(grid, layout)),
        r"\end{figure}",
    ]
    return "\n".join(lines) + "\n"


def _key(grid: Grid) -> str:
    return re.sub("[^A-Za-z0-9:-]", "-", grid.name)


def escape(text: str) -> str:
    """Text as LaTeX that prints it; characters that standard LaTeX cannot print lose their accents or are named."""
    return "".join(_escaped(c) for c in " ".join(text.split()))


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if ord(character) < 0x180 and character.isprintable():  # Latin letters with accents: inputenc knows them
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(_ESCAPES.get(c, c) for c in plain) if plain else rf"\texttt{{U+{ord(character):04X}}}"


def _heading(text: str) -> str:
    """A heading of several words stands on two lines, so that columns are as narrow as their numbers."""
    words = text.split()
    if len(words) < 2 or len(text) < 7:
        return escape(text)
    cut = min(range(1, len(words)), key=lambda i: max(len(" ".join(words[:i])), len(" ".join(words[i:]))))
    return rf"\shortstack[r]{{{escape(' '.join(words[:cut]))}\\{escape(' '.join(words[cut:]))}}}"


def _body(layout: Layout, width: int) -> list[str]:
    lines: list[str] = []
    for i, row in enumerate(layout.rows):
        first = row.kind == "group" or row.label.text != ""
        if first and i:
            after_heading = layout.rows[i - 1].kind == "group"
            lines += [r"\midrule"] if row.kind == "group" else [] if after_heading else [r"\addlinespace[2pt]"]
        lines.append(_line(row, layout, width))
    return lines


def _line(row: GridRow, layout: Layout, width: int) -> str:
    if row.kind == "group":
        return rf"\multicolumn{{{width}}}{{@{{}}l}}{{\textbf{{{escape(row.label.text)}}}}} \\"
    whose = [_text(row.whose)] if layout.whose else []
    n = [escape(row.n)] if layout.counted else []
    return " & ".join([_text(row.label), *whose, *(_cell(row, piece) for piece in row.cells), *n]) + r" \\"


def _cell(row: GridRow, piece: Piece) -> str:
    if row.kind == "difference" and piece.cell is not None and piece.text:
        return _text(piece) + _SIGNS.get(piece.cell.overlap, "")
    return _text(piece)


def _text(piece: Piece) -> str:
    # a sign of its own, not a hyphen, before a number
    text = re.sub(r"^-(?=\d)", "$-$", escape(piece.text))
    marks = ",".join([*piece.marks, *map(str, piece.notes)])
    return text + (rf"\textsuperscript{{{marks}}}" if marks else "")


def _below(grid: Grid, layout: Layout) -> list[str]:
    texts = [escape(grid.note)] if grid.note else []
    texts += [escape(" ".join(layout.explained))] if layout.explained else []
    for signs in (layout.legend, enumerate(layout.notes, 1)):
        run_in = "; ".join(rf"\textsuperscript{{{sign}}} {escape(text).rstrip('.')}" for sign, text in signs)
        texts += [f"{run_in}."] if run_in else []
    texts += [_emphasised(statement) for statement in grid.statements]
    return texts + [escape(text) for text in grid.footer]


def _emphasised(text: str) -> str:
    """Statements carry their outcome as **outcome**."""
    parts = re.split(r"\*\*(.+?)\*\*", text)
    return "".join(rf"\textbf{{{escape(p)}}}" if i % 2 else _spaced(p) for i, p in enumerate(parts))


def _spaced(text: str) -> str:
    """Escaped text that keeps the space at its ends."""
    return " " * text.startswith(" ") + escape(text) + " " * (text.endswith(" ") and bool(text.strip()))
