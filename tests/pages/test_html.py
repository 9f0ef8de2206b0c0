"""Pages: they need nothing but themselves, hide nothing, and fit the window of a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from alphatune.pages.html import IndexEntry, entry_of, index, inline_svg, page
from alphatune.pages.layout import lay_out
from alphatune.tables.grid import MARKS, Grid, GridCell, Line

SOURCE = "AlphaTuning, Table 2"
VOID = {"meta", "link", "br", "img", "hr", "input", "path", "use", "rect"}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SVG = """<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C" "http://www.w3.org/x.dtd">
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="900pt" height="90pt"
viewBox="0 0 900 90"><defs><path id="a" d="M0 0h9"/><clipPath id="c"><rect width="9" height="9"/></clipPath></defs>
<g clip-path="url(#c)"><use xlink:href="#a"/></g></svg>"""


class _Page(HTMLParser):
    """Collects what the tests look at and checks that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag]


def _grid(columns: int = 3, source: str = SOURCE) -> Grid:
    """Every mark occurs, and texts that would be markup if they were not escaped."""
    lines = []
    for i, label in enumerate(["FT", "LoRA <b>&amp;</b>", "AlphaTuning, q=3"]):
        cells = [GridCell("0.22M", "0.22M", "same")]
        for k in range(columns - 1):
            paper = 50.0 + i + k
            cells.append(GridCell(
                f"{paper - 1:.1f} ± 0.4", f"{paper:.1f} ± 0.2" if source else "", "-1.0" if source else "",
                ("apart", "overlap")[k % 2] if source else "", 3 if i else 5, paper - 1, 0.4, paper, 0.2,
                ["partial", "dirty"] if i else [], [f"results/{i}/{k}-seed{s}.json" for s in range(3 if i else 5)],
            ))  # fmt: skip
        lines.append(Line(f"row{i}", label, "GPT-2 M" if i < 2 else "GPT-2 L", cells, 3 if i else 5, 5, ["substitute"]))
    lines[0].marks, lines[0].quoted_from = ["substitute", "quoted", "unsettled"], "Hu et al. (2022)"
    lines[1].cells[1].marks, lines[1].cells[1].note = ["partial", "doubtful", "earlier"], "printed as 40.9 <and> 41.0"
    lines[2].cells[2] = GridCell(paper="50.0 ± 0.2", n=0, marks=["missing"])
    return Grid(
        "table2", "Table 2: WebNLG", ["Trainable", *(f"BLEU part {k}" for k in range(1, columns))], lines,
        note="Beam 10.", source=source, substitute="mini-gpt2 (14 M parameters), 80 inputs",
        statements=["**reproduced**: a < b"], footer=["Machine M; commit 123."],
    )  # fmt: skip


def _text(html: str) -> str:
    return " ".join("".join(_Page(html).text).split())


def test_a_page_needs_nothing_but_itself() -> None:
    html = page(_grid(), {"figure4": SVG, "figure 5": SVG}, "index.html")
    assert not re.search(r"https?:|//|<script|<link|@import|javascript:", html)
    for _, found in _Page(html).elements:
        for name in ("href", "src"):
            assert (found.get(name) or "#").startswith(("#", "index.html"))


def test_every_record_note_and_mark_is_there() -> None:
    grid = _grid()
    html = page(grid, {})
    text, parsed = _text(html), _Page(html)
    for line in grid.lines:
        for cell in line.cells:
            assert all(f"<code>{file}</code>" in html for file in cell.records)
            assert cell.ours in text and cell.paper in text
    assert "printed as 40.9 <and> 41.0" in text and "Quoted by the paper from Hu et al. (2022)." in text
    assert "reproduced: a < b" in text and "<strong>reproduced</strong>" in html
    assert "Machine M; commit 123." in text
    ids = {found["id"] for _, found in parsed.elements if "id" in found}
    assert {f"mark-{letter}" for letter in "abcdefgh"} <= ids and len(MARKS) == 8
    targets = {str(found["href"])[1:] for found in parsed.all("a")}
    assert targets <= ids and {"mark-a", "mark-c", "mark-d", "mark-e", "mark-f"} <= targets


def test_the_papers_lines_are_labelled_and_overlap_is_in_words() -> None:
    html = page(_grid(), {})
    for row in re.findall(r'<tr class="paper">.*?</tr>', html, re.DOTALL):
        assert f"paper ({SOURCE})" in row
    rows = re.findall(r'<tr class="difference">.*?</tr>', html, re.DOTALL)
    assert len(rows) == 3
    assert (
        "−1.0 <span" in rows[0] and ", the intervals overlap</span>" in rows[0] and "do not overlap</span>" in rows[0]
    )


def test_mean_interval_and_count_of_a_cell() -> None:
    html = page(_grid(), {})
    assert 'title="mean 49.0, 95 % interval 48.6 to 49.4, n = 5 of 5"' in html
    assert "<td>48.6 to 49.4</td>\n<td>5 of 5</td>" in html
    assert 'title="no value, n = 0 of 5"' in html


def test_substitute_is_in_the_title_and_on_every_row() -> None:
    html = page(_grid(source=""), {})
    assert re.search(r"<title>[^<]*mini-gpt2 \(14 M parameters\), 80 inputs", html)
    rows = re.findall(r'<tr class="ours">.*?</tr>', html, re.DOTALL)
    assert len(rows) == 3 and all("substitute mini-gpt2" in row for row in rows)
    assert 'class="paper"' not in html


def test_labels_are_escaped_and_headers_have_a_scope() -> None:
    html = page(_grid(), {})
    assert "LoRA &lt;b&gt;&amp;amp;&lt;/b&gt;" in html and "<b>" not in html
    parsed = _Page(html)
    assert all(found.get("scope") in ("col", "row", "rowgroup", "colgroup") for found in parsed.all("th"))
    assert parsed.all("caption") and parsed.all("html")[0]["lang"] == "en"
    assert "@media print" in html and "tabular-nums" in html


def test_pictures_are_inside_with_ids_of_their_own() -> None:
    html = page(_grid(), {"one": SVG, "two": SVG})
    ids = [found["id"] for _, found in _Page(html).elements if "id" in found]
    assert len(ids) == len(set(ids)) and {"one-a", "two-c"} <= set(ids)
    assert 'href="#two-a"' in html and "url(#one-c)" in html and html.count('role="img"') == 2
    assert "DOCTYPE svg" not in html


@pytest.mark.parametrize("bad", ["<script>1</script>", '<image href="x.png"/>', '<g onload="x()"/>', "no picture"])
def test_a_picture_that_is_more_than_a_picture_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="picture p: "):
        inline_svg(bad if bad == "no picture" else f"<svg>{bad}</svg>", "p", "label")


def test_a_figure_without_numbers() -> None:
    html = page(Grid("figure2", "Figure 2", [], [], pictures=["figure2"]), {"figure2": SVG})
    assert "<table" not in html and "<svg" in html and "<details" not in html


def _entries() -> list[IndexEntry]:
    return [
        IndexEntry("Table 2", SOURCE, 12, 110, "", "table2.html"),
        IndexEntry("Table 2 in <small>", "", 24, 24, "mini-gpt2 (14 M parameters)", "table2_mini.html"),
        IndexEntry("Table 1", "AlphaTuning, Table 1", 0, 0, "", "table1.html"),
    ]


def test_the_index_lists_every_entry() -> None:
    html = index(_entries(), "claims.html")
    text = _text(html)
    assert "12 of 110" in text and "24 of 24" in text and "nothing to run" in text
    assert "Table 2 in <small>" in text and "mini-gpt2 (14 M parameters)" in text
    links = [found["href"] for found in _Page(html).all("a")]
    assert links == ["claims.html", "table2.html", "table2_mini.html", "table1.html"]
    assert "claims.html" not in index(_entries(), claims="")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("width", [1280, 600])
@pytest.mark.parametrize("name", ["wide", "plain", "index"])
def test_a_browser_shows_the_page_without_errors_or_overflow(name: str, width: int, tmp_path: Path) -> None:
    html = {
        "wide": lambda: page(_grid(13), {"f": SVG}, "index.html"),
        "plain": lambda: page(_grid(4, ""), {}),
        "index": lambda: index(_entries()),
    }[name]()
    # the page itself runs nothing; this asks it for its widths once it is laid out, with everything unfolded
    ask = """<script>document.querySelectorAll("details").forEach(d => d.open = true);
    const r = document.documentElement, t = document.querySelector("table").parentElement;
    r.dataset.widths = [r.scrollWidth, r.clientWidth, t.scrollWidth > t.clientWidth].join(" ");</script>"""
    file = tmp_path / "page.html"
    file.write_text(html.replace("</body>", ask + "</body>"), encoding="utf-8")
    call = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(call, capture_output=True, text=True, timeout=90)
    assert "CONSOLE" not in done.stderr
    found = re.search(r'data-widths="(\d+) (\d+) (\w+)"', done.stdout)
    assert found, done.stderr[-2000:]
    scroll, client, table_scrolls = found.groups()
    assert int(scroll) <= int(client) and abs(int(client) - width) <= 20
    if name == "wide":
        assert table_scrolls == "true"  # in its own container, so that the page does not


def test_the_index_shows_first_what_was_run_here_then_what_waits() -> None:
    html = index([IndexEntry("Waits", "", 0, 5, "", "a.html"), *_entries()])
    order = [
        "Run here",
        "Table 2",
        "Table 2 in &lt;small&gt;",
        "Waiting to be run",
        "Waits",
        "Nothing to run",
        "Table 1",
    ]
    places = [html.index(f">{text}") for text in order]
    assert places == sorted(places)
    assert "Waiting to be run" not in index(_entries())


def test_a_page_says_of_itself_what_the_index_needs() -> None:
    entry = IndexEntry('Table "2" & more', SOURCE, 3, 8, "model=<b>", "table2--model=b.html")
    assert entry_of(page(_grid(), {}, entry=entry)) == entry
    assert entry_of(page(_grid(), {})) is None
    assert entry_of('<meta name="alphatune-entry" content="{&#34;old&#34;: 1}">') is None


@pytest.mark.parametrize("text", [page(_grid(25), {}), index(_entries())], ids=["page", "index"])
def test_every_table_scrolls_inside_its_page(text: str) -> None:
    """No browser is needed to see that each table stands in a box of its own with a scroll bar."""
    opened: list[tuple[str, str]] = []
    seen = 0
    for tag in re.findall(r"<(/?)(div|table)\b([^>]*)>", text):
        if tag[0]:
            opened.pop()
            continue
        if tag[1] == "table":
            seen += 1
            assert any('class="scroll' in attributes for _, attributes in opened)
        opened.append((tag[1], tag[2]))
    assert seen and re.search(r"\.scroll \{[^}]*overflow-x: auto", text)


@pytest.mark.parametrize(
    ("substitute", "named"),
    [
        ("mini-gpt2 (14 M parameters), 480 texts", "ours, substitute mini-gpt2"),
        ("model.name_or_path=/very/long/path/to/folder/small", "ours, substitute small"),
        ("model=tiny; task=toy", "ours, substitute model=tiny and 1 more"),
        ("decode.length_penalty=0.5", "ours, substitute decode.length_penalty=0.5"),
        ("model.name_or_path=" + "x" * 60, f"ours, substitute {('model.name_or_path=' + 'x' * 60)[:37]}..."),
        ("", "ours"),
    ],
)
def test_whose_is_a_name_and_no_path(substitute: str, named: str) -> None:
    grid = _grid()
    grid.substitute = substitute
    assert next(row.whose.text for row in lay_out(grid).rows if row.kind == "ours") == named
