"""`results/README.md`: the page a person opens first."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from bench.cache import write_atomically
from bench.report.common import Section

INTRODUCTION = """# Results

Made by `make bench` (see the [README](../README.md)). All log-probabilities, ELBOs, rates and
distortions are natural logarithms: **nats per image**. Intervals are 95 %.
"""


def write_page(place: Path, sections: list[Section]) -> None:
    """Keep a folder's sections, so that the index can be made without redrawing them."""
    content = json.dumps([asdict(section) for section in sections], indent=1, ensure_ascii=False)
    write_atomically(place / "page.json", content.encode() + b"\n")


def write_index(folder: Path) -> Path:
    """Write the index over every page under the results folder; the index's path."""
    places = sorted((path.parent for path in folder.glob("*/*/page.json")), key=_order)
    contents = [f"- [{_title(place)}](#{_anchor(place)})" for place in places]
    pages = [_page(folder, place, _sections(place)) for place in places]
    path = folder / "README.md"
    write_atomically(path, ("\n".join([INTRODUCTION, *contents, *pages]) + "\n").encode())
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


def _anchor(place: Path) -> str:
    return _title(place).lower().replace(" ", "-")


def _page(folder: Path, place: Path, sections: list[Section]) -> str:
    where = place.relative_to(folder)
    lines = [f"\n## {_title(place)}\n", _made(place), ""]
    for section in sections:
        lines += [f"### {section.title}\n", section.takeaway, ""]
        if section.table:
            lines += [section.table, ""]
        if section.notes:
            lines += [section.notes, ""]
        for file, how in section.figures:
            lines += [f"![{section.title}]({where / file})\n", f"*{how}*\n"]
        if section.files:
            links = ", ".join(f"[{file}]({where / file})" for file in section.files)
            lines += [f"Files: {links}\n"]
    return "\n".join(lines)


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
