"""Tables as text: nothing is lost or mislabelled, and every format can be read back."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from alphatune.pages import render
from alphatune.pages.latex import escape
from alphatune.pages.layout import lay_out
from alphatune.tables import formats
from alphatune.tables.grid import MARKS, Grid, GridCell, Line

SOURCE = "AlphaTuning, Table 2"
DOCUMENT = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{t}\end{document}"


def _score(ours: float, paper: float, n: int = 5, marks: tuple[str, ...] = (), note: str = "") -> GridCell:
    return GridCell(
        ours=formats.number(ours, 0.4, 1), paper=formats.number(paper, 0.2, 1), difference=f"{ours - paper:+.1f}",
        overlap="overlap" if abs(ours - paper) <= 0.6 else "apart", n=n, mean=ours, ci95=0.4, paper_mean=paper,
        paper_ci95=0.2, marks=list(marks), records=[f"results/r-{ours}-seed{s}.json" for s in range(n)], note=note,
    )  # fmt: skip


def published() -> Grid:
    """Two groups; every mark occurs."""
    size = GridCell(ours="0.22M", paper="0.22M", difference="same", mean=221184, paper_mean=220000.0)
    missing = GridCell(paper="50.0 ± 0.2", paper_mean=50.0, paper_ci95=0.2, n=0, marks=["missing"])
    lines = [
        Line("m/ft", "FT", "GPT-2 M", [size, _score(53.1, 53.4), _score(40.0, 42.0)], 5, 5, ["quoted"],
             "Hu et al. (2022)"),
        Line("m/a3", "Alpha_Tuning | 50% & q=3", "GPT-2 M",
             [size, _score(52.0, 52.0, 3, ("partial",)),
              _score(41.0, 41.0, 3, ("partial", "dirty", "doubtful", "earlier"), "printed twice")],
             3, 5, ["substitute", "unsettled"]),
        Line("l/ft", "FT", "GPT-2 L", [size, missing, missing], 0, 5, note="never\nrun"),
    ]  # fmt: skip
    return Grid(
        "table2", "Table 2: WebNLG", ["Trainable", "BLEU Unseen", "BLEU All"], lines, note="Beam 10.", source=SOURCE,
        interval="the standard deviation over 5 seeds", statements=["**reproduced**: q=3 is close (0.1 ± 0.2)"],
        footer=["Measured on a machine."], pictures=["table2"],
    )  # fmt: skip


def unpublished() -> Grid:
    """Nothing to compare with, and a substitute."""
    cells = [GridCell("327.23"), GridCell("53.0 ± 12.7", n=2, mean=53.0, ci95=12.7)]
    lines = [Line("a", "A method", "", cells, 2, 2, ["substitute"])]
    return Grid("mini", "Small", ["MB", "BLEU"], lines, substitute="mini-gpt2 (14 M parameters), 80 inputs")


def _table(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_markdown_columns_are_aligned_and_complete() -> None:
    lines = _table(render.markdown(published()))
    bars = [[m.start() for m in re.finditer(r"(?<!\\)\|", line)] for line in lines]
    assert all(b == bars[0] for b in bars)
    assert [re.split(r"(?<!\\)\|", line)[1].strip() for line in lines[2:]] == [
        "**GPT-2 M**", "FT", "", "", r"Alpha_Tuning \| 50% & q=3", "", "", "**GPT-2 L**", "FT[3]", "", "",
    ]  # fmt: skip


def test_markdown_without_published_values() -> None:
    assert _table(render.markdown(unpublished())) == [
        "| Row      | Whose                       |     MB |        BLEU |      n |",
        "| :------- | :-------------------------- | -----: | ----------: | -----: |",
        "| A method | ours, substitute mini-gpt2ᵈ | 327.23 | 53.0 ± 12.7 | 2 of 2 |",
    ]
    plain = unpublished()
    plain.substitute, plain.lines[0].marks = "", []
    assert _table(render.markdown(plain))[2] == "| A method | 327.23 | 53.0 ± 12.7 | 2 of 2 |"


def test_the_papers_numbers_are_always_labelled() -> None:
    rows = lay_out(published()).rows
    assert [row.kind for row in rows if row.kind == "paper"] == ["paper"] * 3
    for row in rows:
        papers = {cell.paper for cell in row.line.cells} if row.line else set()
        if row.kind == "paper":
            assert row.whose.text == f"paper ({SOURCE})"
        elif row.kind == "ours":
            assert not papers - {"0.22M"} & {piece.text for piece in row.cells}


def test_a_long_source_is_short_in_the_lines_and_full_below() -> None:
    grid = published()
    grid.source = "AlphaTuning (EMNLP Findings 2022), Table 2"
    layout = lay_out(grid)
    assert {row.whose.text for row in layout.rows if row.kind == "paper"} == {"paper (AlphaTuning, Table 2)"}
    assert any(grid.source in sentence for sentence in layout.explained)


@pytest.mark.parametrize("make", [render.markdown, render.latex])
def test_substitute_is_in_the_title_and_on_the_line_of_the_number(make: object) -> None:
    text = make(unpublished())  # type: ignore[operator]
    title = next(line for line in text.splitlines() if "Small" in line)
    number = next(line for line in text.splitlines() if "53.0" in line)
    assert "mini-gpt2 (14 M parameters), 80 inputs" in title
    assert "substitute mini-gpt2" in number


def test_marks_stand_at_what_they_speak_of() -> None:
    by = {(row.line.id, row.kind): row for row in lay_out(published()).rows if row.line}
    assert by["m/ft", "ours"].whose.marks == "" and by["m/ft", "paper"].whose.marks == "e"
    assert by["m/a3", "ours"].whose.marks == "bdg"  # every measured cell is partial: once for the row
    assert [piece.marks for piece in by["m/a3", "ours"].cells] == ["", "", "ch"]
    assert [piece.marks for piece in by["m/a3", "paper"].cells] == ["", "", "f"]
    assert by["l/ft", "ours"].whose.marks == "a" and by["l/ft", "ours"].n == "0 of 5"


def test_the_legend_has_the_marks_that_occur_and_no_other() -> None:
    assert [meaning for _, meaning in lay_out(published()).legend] == list(MARKS.values())
    assert [letter for letter, _ in lay_out(unpublished()).legend] == ["d"]


def test_notes_are_numbered_once() -> None:
    layout = lay_out(published())
    assert layout.notes == ["Quoted by the paper from Hu et al. (2022).", "printed twice", "never run"]


def test_cells_with_other_counts_than_their_row_say_so() -> None:
    grid = unpublished()
    grid.lines[0].cells[1].n = 1
    assert "53.0 ± 12.7 (n=1)" in render.markdown(grid)


def test_a_row_that_only_the_paper_has() -> None:
    grid = published()
    grid.lines = [Line("q", "Quoted", "", [GridCell(paper="1"), GridCell(), GridCell()], None, 5)]
    rows = lay_out(grid).rows
    assert [(row.kind, row.label.text) for row in rows] == [("paper", "Quoted")]


def test_a_figure_has_no_table() -> None:
    grid = Grid("figure2", "Figure 2", [], [], pictures=["figure2"])
    assert render.markdown(grid) == "# Figure 2\n\n![figure2](figure2.png)\n"
    assert r"\includegraphics[width=\linewidth]{figure2.png}" in render.latex(grid)
    assert len(render.csv(grid).splitlines()) == 1


@pytest.mark.parametrize("make", [published, unpublished])
def test_latex_is_balanced(make: object) -> None:
    text = re.sub(r"\\[{}]", "", render.latex(make()))  # type: ignore[operator]
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    for name in ("table", "tabular", "minipage"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1


def test_latex_rows_have_all_columns() -> None:
    text = render.latex(published())
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()
    cells = [line.replace(r"\&", "").count("&") for line in body if line.endswith(r"\\") and "multicolumn" not in line]
    assert set(cells) == {5}
    assert r"\multicolumn{6}{@{}l}{\textbf{GPT-2 M}} \\" in body


def test_latex_escapes() -> None:
    assert escape(r"50% & W_LoRA #1 {a} ~ ^ \x $") == (
        r"50\% \& W\_LoRA \#1 \{a\} \textasciitilde{} \textasciicircum{} \textbackslash{}x \$"
    )
    assert escape("53.1 ± 0.4 × é 字 ﬁ") == r"53.1 $\pm$ 0.4 $\times$ é \texttt{U+5B57} fi"
    assert r"Alpha\_Tuning $|$ 50\% \& q=3" in render.latex(published())


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("make", [published, unpublished])
def test_latex_compiles(make: object, tmp_path: Path) -> None:
    grid = make()  # type: ignore[operator]
    grid.footer += [r"Odd signs: [x] <y> \z ~ ^ # $ % & _ { } | α β ≈ ≠ … – — 字 é"]
    (tmp_path / "t.tex").write_text(render.latex(grid), encoding="utf-8")
    (tmp_path / "d.tex").write_text(DOCUMENT, encoding="utf-8")
    call = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "d.tex"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert b"Overfull" not in done.stdout


def test_csv_read_back_is_the_grid() -> None:
    grid = published()
    read = list(csv.DictReader(io.StringIO(render.csv(grid))))
    want = [(line, column, cell) for line in grid.lines for column, cell in zip(grid.columns, line.cells, strict=True)]
    assert len(read) == len(want)

    def text(value: object) -> str:
        return "" if value is None else str(value)

    for got, (line, column, cell) in zip(read, want, strict=True):
        assert (got["table"], got["row"], got["group"]) == ("table2", line.id, line.group)
        assert (got["label"], got["column"]) == (line.label, column)
        assert (got["ours_mean"], got["ours_ci95"]) == (text(cell.mean), text(cell.ci95))
        assert (got["n"], got["of"]) == (text(cell.n), "" if cell.n is None else text(line.of))
        assert (got["paper_mean"], got["paper_ci95"]) == (text(cell.paper_mean), text(cell.paper_ci95))
        assert (got["difference"], got["overlap"]) == (cell.difference, cell.overlap)
        assert set(filter(None, got["marks"].split("; "))) == {*line.marks, *cell.marks}
        assert list(filter(None, got["records"].split("; "))) == cell.records
        assert got["paper_source"] == SOURCE and got["paper_quotes"] == line.quoted_from
        assert cell.note in got["note"]


@pytest.mark.parametrize(
    ("number", "text"), [(221184, "0.22M"), (354823168, "354.8M"), (9216, "9216"), (65664, "0.066M"), (1.4e6, "1.40M")]
)
def test_counts_of_parameters(number: float, text: str) -> None:
    assert formats.count(number) == text


def test_numbers() -> None:
    assert formats.number(53.14, 0.36, 1) == "53.1 ± 0.4"
    assert formats.number(53.14, None, 2) == "53.14"
    assert formats.number(53.14, 0.0, 1) == "53.1 ± 0.0"
