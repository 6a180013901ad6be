"""The pages a person reads: `results/README.md` with what was found, and one page a folder with
every table and figure."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

from bench.cache import write_atomically
from bench.report.common import Section

INTRODUCTION = """# Results

Made by `make bench` (see the [README](../README.md)). All log-probabilities, ELBOs, rates and
distortions are natural logarithms: **nats per image**. Intervals are 95 %. Each question leads to
its tables and figures, and to how they are read.
"""


def write_page(place: Path, sections: list[Section]) -> None:
    """Keep a folder's sections, so that the pages can be made without redrawing them."""
    content = json.dumps([asdict(section) for section in sections], indent=1, ensure_ascii=False)
    write_atomically(place / "page.json", content.encode() + b"\n")


def write_index(folder: Path) -> Path:
    """Write every page under the results folder and the index over them; the index's path."""
    places = sorted((path.parent for path in folder.glob("*/*/page.json")), key=_order)
    contents = [f"- [{_title(place)}](#{anchor(_title(place))})" for place in places]
    for place in places:
        write_atomically(place / "README.md", _page(place, _sections(place)).encode())
    entries = [_entry(place.relative_to(folder), place, _sections(place)) for place in places]
    path = folder / "README.md"
    write_atomically(path, "\n".join([INTRODUCTION, *contents, *entries]).encode())
    return path


def _sections(place: Path) -> list[Section]:
    return [Section(**content) for content in json.loads((place / "page.json").read_text())]


def _order(place: Path) -> tuple[int, str]:
    """The default data set first, then MNIST, then the others."""
    first = ("mnist5k", "mnist", "fashion_mnist")
    name = place.parent.name
    return (first.index(name) if name in first else len(first), str(place))


def _title(place: Path) -> str:
    return f"{place.parent.name} on {place.name}"


def anchor(heading: str) -> str:
    """The name under which GitHub links to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _entry(where: Path, place: Path, sections: list[Section]) -> str:
    """A folder in the index: its headline with table and figure, then a line a question."""
    headline, *others = sections or [Section("", "nothing was measured")]
    lines = [f"\n## {_title(place)}\n", _made(place), "", headline.takeaway, "", headline.table, ""]
    lines += [f"![{headline.title}]({where / file})\n" for file, _ in headline.figures[:1]]
    lines += [f"[Everything about {_title(place)}]({where}/README.md), by question:\n"]
    lines += [
        f"- **[{section.title}]({where}/README.md#{anchor(section.title)})** {section.takeaway}"
        for section in others
    ]
    return "\n".join(lines) + "\n"


def _page(place: Path, sections: list[Section]) -> str:
    lines = [f"# {_title(place)}\n", _made(place), "", "[All results](../../README.md)", ""]
    lines += [f"- [{section.title}](#{anchor(section.title)})" for section in sections]
    for section in sections:
        lines += [f"\n## {section.title}\n", section.takeaway, ""]
        if section.table:
            lines += [section.table, ""]
        if section.notes:
            lines += [section.notes, ""]
        for file, how in section.figures:
            lines += [f"![{section.title}]({file})\n", f"*{how}*\n"]
        if section.files:
            lines += ["Files: " + ", ".join(f"[{file}]({file})" for file in section.files)]
    return "\n".join(lines) + "\n"


def _made(place: Path) -> str:
    """Where and how the numbers were made, and the command that makes them again."""
    try:
        env = json.loads((place / "environment.json").read_text())
    except (OSError, ValueError):
        return ""
    config = env["config"]
    grey = "" if config["binarization"] != "none" else (
        "**Grey pixels**: these are cross-entropies of intensities, not likelihoods; they share "
        "no table with binarized runs.\n\n"
    )  # fmt: skip
    return (
        f"{grey}{config['seeds']} seeds, preset `{config['preset']}`, binarization "
        f"`{config['binarization']}`; {env['gpu'] or env['cpu']}, {env['cores']} cores, torch "
        f"{env['packages']['torch']}, commit `{env['commit']}`. Again: `{_command(config)}`."
    )


def _command(config: dict) -> str:
    """The command that makes the results again; make has no variable for the rarer options."""
    named = [name for name in ("dataset", "preset", "seeds", "precision") if name in config]
    rarer = [name for name in ("likelihood", "decoder") if name in config]
    if rarer:
        options = " ".join(f"--{name} {config[name]}" for name in named + rarer)
        return f"python -m bench run {options}"
    return "make bench " + " ".join(f"{name.upper()}={config[name]}" for name in named)
