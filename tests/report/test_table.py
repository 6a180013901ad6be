"""A table says the same in Markdown, CSV, HTML and LaTeX."""

from __future__ import annotations

import html
import math
import re

import numpy as np
import pytest

from bench.report.page import MARKDOWN
from bench.report.table import Cell, Column, Table, escaped, formatted, number
from bench.statistics import Estimate


@pytest.fixture
def table() -> Table:
    return Table(
        "elbo",
        ["variant", Column("ELBO", best="max"), Column("time [µs]", digits=None), "kind"],
        [
            ["fixed_variance", Estimate(-99.218, 0.11, 5), 12345.6, "a"],
            ["<flow>", Estimate(-94.6, 0.25, 5), Cell(reason="never timed"), "b|c"],
            ["autoencoder", None, 0.00012, ""],
        ],
        "Test ELBO of R&D.",
        variants=["fixed_variance", "flow", "autoencoder"],
    )


def test_markdown(table):
    assert table.markdown().splitlines() == [
        "| variant | ELBO | time \\[µs\\] | kind |",
        "| :-- | --: | --: | :-- |",
        "| fixed\\_variance | −99.22 ± 0.11 | 1.23e4 | a |",
        "| \\<flow\\> | **−94.60 ± 0.25** | n/a | b\\|c |",
        "| autoencoder | – | 1.20e−4 | – |",
    ]


def test_markdown_reads_as_the_same_cells(table):
    rendered = MARKDOWN.render(table.markdown())
    assert '<td style="text-align:left">&lt;flow&gt;</td>' in rendered
    assert '<td style="text-align:left">b|c</td>' in rendered
    assert "<strong>−94.60 ± 0.25</strong>" in rendered


def test_csv_has_every_digit_and_the_reasons(table):
    frame = table.frame()
    assert list(frame) == [
        "variant",
        "ELBO",
        "ELBO half-width",
        "time [µs]",
        "time [µs] reason",
        "kind",
    ]
    assert frame["ELBO"][0] == -99.218
    assert math.isnan(frame["ELBO"][2])
    assert frame["time [µs] reason"][1] == "never timed"
    assert list(frame["kind"]) == ["a", "b|c", ""]


def test_columns_of_one_heading_are_both_kept():
    frame = Table("t", ["a", "a"], [[1, 2]]).frame()
    assert frame.to_numpy().tolist() == [[1, 2]]


def test_html_sorts_by_exact_values_and_filters_by_variant(table):
    text = table.html()
    assert '<td data-value="-99.218">−99.22 ± 0.11</td>' in text
    assert '<tr data-variant="flow"><td>&lt;flow&gt;</td>' in text
    assert '<table class="left-1 left-4">' in text
    assert '<td title="never timed">n/a</td>' in text
    assert "<caption>Test ELBO of R&amp;D.</caption>" in text
    assert text.count('<th scope="col" aria-sort="none"') == 4
    assert text.count('<button type="button">') == 4
    assert '<td data-value="-94.6"><strong>−94.60 ± 0.25</strong></td>' in text


def test_html_sorts_by_numbers_of_numpy_too():
    table = Table("t", [Column("a", 0), Column("b", 1)], [[np.int64(15), np.float64(0.5123)]])
    assert "<td>15</td>" in table.html()  # which the page reads from the text
    assert re.findall('data-value="([^"]*)"', table.html()) == ["0.5123"]


def test_latex_is_a_booktabs_tabular(table):
    latex = table.latex()
    for part in (
        r"\begin{tabular}{lrrl}",
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"fixed\_variance & $-$99.22 $\pm$ 0.11",
        r"\textbf{$-$94.60 $\pm$ 0.25}",
        r"time [$\mu$s]",
    ):
        assert part in latex
    assert latex.isascii()


def test_the_best_is_sought_within_a_group():
    column = Column("loss", best="min")
    lines = [["a", 3], ["b", 2], ["a", 1], ["b", 5]]
    table = Table("t", ["variant", column], lines, groups=[1, 1, 2, 2])
    assert [line.split(" | ")[1] for line in table.markdown().splitlines()[2:]] == [
        "3.00 |",
        "**2.00** |",
        "**1.00** |",
        "5.00 |",
    ]


def test_what_is_no_contestant_is_not_the_best():
    column = Column("loss", best="min")
    table = Table("t", ["variant", column], [["a", 1], ["b", 2], ["c", 3]], groups=[None, 1, 1])
    assert [line.count("**") for line in table.markdown().splitlines()[2:]] == [0, 2, 0]


def test_a_line_each_setting_in_the_order_of_the_entries():
    entries = {("b", 1, "loss"): 2, ("a", 1, "gap"): 3, ("a", 1, "loss"): 1, ("a", 2, "gap"): 4}
    columns = {"loss": Column("loss", best="min"), "gap": Column("gap")}
    table = Table.of_settings("t", ["variant", "size"], columns, entries, group=lambda key: key[1])
    assert [line.split(" | ", 1)[0] for line in table.markdown().splitlines()[2:]] == [
        "| b",
        "| a",
        "| a",
    ]
    assert "| a | 1.00 | **1.00** | 3.00 |" in table.markdown()
    assert table.variants == ["b", "a", "a"]


def test_a_table_without_lines_can_be_printed():
    empty = Table("t", ["a", Column("b", best="max")], [])
    assert empty.markdown().count("\n") == 1
    assert "<tbody></tbody>" in empty.html()
    assert "toprule" in empty.latex()
    assert len(empty.frame()) == 0


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [
        (17.54, 0.61, "17.54 ± 0.61"),
        (15231, 512, "1.523e4 ± 0.051e4"),
        (0.00012, math.nan, "1.20e−4"),
        (1234.5, math.nan, "1234"),
        (-3, math.nan, "−3.00"),
        (0, math.nan, "0"),
        (1e-6, 5, "0.0 ± 5.0"),
        (math.inf, math.nan, "inf"),
    ],
)
def test_numbers_show_as_many_digits_as_their_interval_bears(value, half_width, text):
    assert number(value, half_width) == text


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [
        (0.3293, 0.0042, "0.3293 ± 0.0042"),
        (0.3, 0.0051, "0.3000 ± 0.0051"),
        (0.3, 0.0, "0.30 ± 0.00"),
        (0.3, 1e-12, "0.30 ± 0.00"),
        (-1222.57, 2393.5, "−1,223 ± 2,394"),
        (5.0, 99.99, "5.00 ± 99.99"),
    ],
)
def test_decimals_show_a_small_half_width_and_not_those_of_a_large_one(value, half_width, text):
    assert formatted(Cell(value, half_width), Column("difference")) == text


@pytest.mark.parametrize(("value", "text"), [(5e-4, "0.0005"), (0.002, "0.002"), (60, "60")])
def test_a_setting_is_printed_as_it_is(value, text):
    assert formatted(Cell(value, 1e-20), Column("learning rate", exact=True)) == text


@pytest.mark.parametrize("text", ["<b>a</b>", "a|b", "*a* _b_ `c` ~~d~~", "![x](y)", "&lt;", "# a"])
def test_escaped_text_reads_as_it_was(text):
    rendered = MARKDOWN.renderInline(escaped(text))
    assert html.unescape(rendered) == text
    assert "<" not in rendered
