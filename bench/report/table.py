"""A table is typed cells with a format; Markdown, CSV, HTML and LaTeX are ways to print it."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from bench.report.style import ordered, title
from bench.statistics import Estimate

DASH = "–"
PLAIN = str.maketrans({"−": "-", ",": ""})
"""From a number as it is printed to one that a program reads."""
PAGE_LINES = 60


@dataclass(frozen=True)
class Column:
    """How a column's numbers are printed.

    Attributes:
        name: heading.
        digits: decimals, more where a half-width would vanish and none where it is above 100; None
            for significant digits by `number`, with its power of ten.
        best: `max` or `min` prints the best number of the column (or group of lines) bold.
        interval: whether half-widths are printed.
        sign: whether a positive number has a plus sign.
        exact: whether numbers are settings, printed as they are: `0.0005`.
    """

    name: str
    digits: int | None = 2
    best: str = ""
    interval: bool = True
    sign: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Cell:
    """One entry: a number with its half-width, or the reason why there is none.

    Attributes:
        value, half_width: NaN where there is none.
        reason: why there is no number; the entry is then `n/a`.
        text: printed after the number, e.g. `†` or ` · 93 %`; alone where there is no number.
        bold: set bold, where the column does not say by itself.
    """

    value: float = math.nan
    half_width: float = math.nan
    reason: str = ""
    text: str = ""
    bold: bool = False

    @classmethod
    def of(cls, entry: Cell | Estimate | str | float | None) -> Cell:
        """Whatever stands in a line as a cell."""
        if isinstance(entry, Cell):
            return entry
        if isinstance(entry, Estimate):
            return cls(entry.mean, entry.half_width)
        if isinstance(entry, str):
            return cls(text=entry)
        return cls(math.nan if pd.isna(entry) else entry)


@dataclass
class Table:
    """Lines of cells under columns.

    Attributes:
        name: of its files, `tables/<name>.csv`, and `.tex` where it fits a page.
        columns: headings and formats; a bare string heads a column of text or plain numbers.
        lines: entries: text, numbers, `Estimate`s or `Cell`s.
        caption: what it shows, one sentence.
        groups: a label a line; the best number is sought within lines of one label, and not
            among lines labelled None.
        variants: a variant a line, where lines are variants' (the page filters by them).
    """

    name: str
    columns: Sequence[Column | str]
    lines: Sequence[Sequence[Cell | Estimate | str | float | None]]
    caption: str = ""
    groups: Sequence[object] = ()
    variants: Sequence[str] = ()
    _best: set[tuple[int, int]] = field(init=False, repr=False)
    _texts: list[bool] = field(init=False, repr=False)
    """Which columns hold text alone."""

    def __post_init__(self) -> None:
        self.columns = [c if isinstance(c, Column) else Column(c) for c in self.columns]
        self.lines = [[Cell.of(entry) for entry in line] for line in self.lines]
        groups = self.groups or [""] * len(self.lines)
        self._best = set()
        for place, column in enumerate(self.columns):
            values: dict[object, list] = {}
            for i, line in enumerate(self.lines):
                contests = column.best and groups[i] is not None
                if contests and math.isfinite(line[place].value):
                    values.setdefault(groups[i], []).append((line[place].value, i))
            pick = max if column.best == "max" else min
            self._best |= {(pick(own, key=lambda v: v[0])[1], place) for own in values.values()}
        self._texts = [self._holds_text(place) for place in range(len(self.columns))]

    @classmethod
    def of_variants(
        cls,
        name: str,
        columns: Mapping[str, Column],
        entries: Mapping[tuple[str, str], Cell | Estimate | str | float | None],
        caption: str = "",
    ) -> Table:
        """A line a variant, from simple to flexible, of (variant, key of a column) → entry.

        The key "variant" stands for the line's first entry, where it is more than a name.
        """
        variants = ordered(variant for variant, _ in entries)
        lines = [
            [entries.get((v, "variant"), title(v)), *(entries.get((v, key)) for key in columns)]
            for v in variants
        ]
        names = [title(v) for v in variants]
        return cls(name, ["variant", *columns.values()], lines, caption, variants=names)

    @classmethod
    def of_settings(
        cls,
        name: str,
        settings: Sequence[Column | str],
        columns: Mapping[str, Column],
        entries: Mapping[tuple, Cell | Estimate | str | float | None],
        caption: str = "",
        group: Callable[[tuple], object] | None = None,
    ) -> Table:
        """A line each setting, of (variant, …, key of a column) → entry, in the entries' order.

        The best number is sought within lines of whose settings `group` makes the same label.
        """
        keys = list(dict.fromkeys(key[:-1] for key in entries))
        lines = [[*key, *(entries.get((*key, column)) for column in columns)] for key in keys]
        groups = [] if group is None else [*map(group, keys)]
        variants = [key[0] for key in keys]
        return cls(name, [*settings, *columns.values()], lines, caption, groups, variants)

    def texts(self, line: int) -> list[str]:
        return [formatted(c, f) for c, f in zip(self.lines[line], self.columns, strict=True)]

    def _is_bold(self, line: int, place: int) -> bool:
        return (line, place) in self._best or self.lines[line][place].bold

    def _holds_text(self, place: int) -> bool:
        cells = [line[place] for line in self.lines]
        has_none = all(math.isnan(c.value) and not c.reason for c in cells)
        return has_none and any(c.text for c in cells)

    def is_left(self, place: int) -> bool:
        return place == 0 or self._texts[place]

    def frame(self) -> pd.DataFrame:
        """Every digit: a column of values, one of half-widths where there are any, of reasons."""
        found: dict[str, list] = {}
        for place, column in enumerate(self.columns):
            cells = [line[place] for line in self.lines]
            name = f"{column.name} ({place + 1})" if column.name in found else column.name
            if self._texts[place]:
                found[name] = [c.text for c in cells]
                continue
            found[name] = [c.value for c in cells]
            if any(math.isfinite(c.half_width) for c in cells):
                found[f"{name} half-width"] = [c.half_width for c in cells]
            if any(c.reason for c in cells):
                found[f"{name} reason"] = [c.reason for c in cells]
        return pd.DataFrame(found)

    def _printed(self, printed: Callable[[str], str], bold: str) -> list[list[str]]:
        """Heading and lines as texts of a language, in which the best stand like `bold`."""
        body = [
            [
                bold.format(printed(text)) if self._is_bold(i, place) else printed(text)
                for place, text in enumerate(self.texts(i))
            ]
            for i in range(len(self.lines))
        ]
        return [[printed(column.name) for column in self.columns], *body]

    def markdown(self) -> str:
        """For `README.md`: text to the left, numbers to the right, the best bold."""
        head, *body = self._printed(escaped, "**{}**")
        rule = [":--" if self.is_left(place) else "--:" for place in range(len(head))]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *body])

    def html(self) -> str:
        """A `<table>` whose headings are buttons that sort it; numbers carry their exact value."""
        head = "".join(
            f'<th scope="col" aria-sort="none"><button type="button">{html.escape(column.name)}'
            "</button></th>"
            for column in self.columns
        )
        # once a table, which has thousands of cells
        left = " ".join(f"left-{n + 1}" for n in range(len(self.columns)) if self.is_left(n))
        lines = []
        for i, line in enumerate(self.lines):
            variant = f' data-variant="{html.escape(self.variants[i])}"' if self.variants else ""
            lines.append(f"<tr{variant}>{''.join(self._html(i, p) for p in range(len(line)))}</tr>")
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return (
            f'<table class="{left}">{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table>"
        )

    def _html(self, line: int, place: int) -> str:
        cell = self.lines[line][place]
        text = html.escape(formatted(cell, self.columns[place]))
        text = f"<strong>{text}</strong>" if self._is_bold(line, place) else text
        value = f"{cell.value:.6g}" if math.isfinite(cell.value) else ""
        if value == text.translate(PLAIN):  # what the page reads by itself
            value = ""
        value = f' data-value="{value}"' if value else ""
        reason = f' title="{html.escape(cell.reason)}"' if cell.reason else ""
        return f"<td{value}{reason}>{text}</td>"

    @property
    def fits_a_page(self) -> bool:
        """Whether it can be printed in a paper: longer ones are data, and stored as CSV alone."""
        return len(self.lines) <= PAGE_LINES

    def latex(self) -> str:
        """A `booktabs` tabular, by pandas' Styler."""
        texts = pd.DataFrame(
            [self.texts(i) for i in range(len(self.lines))],
            columns=[c.name for c in self.columns],
        )
        bold = pd.DataFrame(
            [
                ["textbf:--rwrap;" if self._is_bold(i, p) else "" for p in range(len(self.columns))]
                for i in range(len(self.lines))
            ],
            columns=texts.columns,
        )
        # Styler needs unique labels, and headings may repeat
        texts.columns = bold.columns = range(len(self.columns))
        styler = texts.style.format(_latex).apply(lambda _: bold, axis=None).hide(axis="index")
        styler = styler.format_index(lambda place: _latex(self.columns[place].name), axis="columns")
        sides = "".join("l" if self.is_left(place) else "r" for place in range(len(self.columns)))
        return styler.to_latex(hrules=True, column_format=sides)


def formatted(cell: Cell, column: Column) -> str:
    """A cell as its column prints it."""
    if cell.reason and math.isnan(cell.value):
        return "n/a"
    if math.isnan(cell.value):
        return cell.text or DASH
    half = cell.half_width if column.interval else math.nan
    if column.exact:
        return f"{cell.value:g}{cell.text}"
    if column.digits is None:
        return number(cell.value, half) + cell.text
    digits = _digits(column.digits, half)
    text = decimal(cell.value, digits, "+" if column.sign else "")
    return text + (f" ± {half:,.{digits}f}" if math.isfinite(half) else "") + cell.text


def _digits(digits: int, half_width: float) -> int:
    """0 for a half-width above 100; two digits of one that is small, but no zero."""
    if half_width > 100:
        return 0
    least = (1.5 if digits else 0.5) * 10.0**-digits
    vanishes = 10.0 ** -(digits + 2) < half_width < least
    return 1 - math.floor(math.log10(half_width)) if vanishes else digits


def decimal(value: float, digits: int = 2, sign: str = "") -> str:
    """`−95.46`: so many decimals, thousands separated, a true minus sign; `sign` may be `+`."""
    return f"{value:{sign},.{digits}f}".replace("-", "−")


def number(value: float, half_width: float = math.nan) -> str:
    """`17.5 ± 0.6`, `1.52e4 ± 0.05e4`: two digits of the interval, or three of a bare number."""
    if not math.isfinite(value):
        return f"{value:g}".replace("nan", "NaN").replace("-", "−")
    has_interval = math.isfinite(half_width) and half_width > 0
    largest = max(abs(value), half_width) if has_interval else abs(value)
    power = math.floor(math.log10(largest)) if largest else 0
    shift = power if power >= 4 or power < -3 else 0
    value, half_width = value / 10.0**shift, half_width / 10.0**shift
    last = half_width / 10 if has_interval else abs(value) / 100
    digits = max(0, -math.floor(math.log10(last))) if last > 0 else 0
    power_text = f"e{shift}" if shift else ""
    text = f"{value:.{digits}f}{power_text}"
    text += f" ± {half_width:.{digits}f}{power_text}" if has_interval else ""
    return text.replace("-", "−")


def spoken(estimate: Estimate, digits: int | None = 2, sign: bool = False) -> str:
    """An estimate in a sentence: `0.86 ± 0.25`."""
    return formatted(Cell.of(estimate), Column("", digits, sign=sign))


def spoken_each(found: Mapping[str, Estimate], digits: int | None = 2) -> str:
    """Variants' estimates in a row: `fixed-variance −95.46 ± 0.10, flow −90.10 ± 0.20`."""
    return ", ".join(f"{title(v)} {spoken(found[v], digits)}" for v in ordered(found))


def escaped(text: str) -> str:
    """Text that is no Markdown: a name or message of somebody else's stays what it is."""
    for character in "\\`*_[]<>|#&~":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "…": r"\dots{}",
    "²": "$^2$",
    "½": r"$\frac{1}{2}$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "μ": r"$\mu$",
    "∂": r"$\partial$",
    "µ": r"$\mu$",
    "÷": r"$\div$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "Σ": r"$\Sigma$",
}


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in str(text))
