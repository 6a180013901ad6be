"""Our training step and IW bound beside those of other libraries, where they were timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from bench.questions.throughput.timings import Timings, span
from bench.report.claims import listing
from bench.report.section import Section, points, prose
from bench.report.table import Cell, Column, Table, escaped


@dataclass(frozen=True)
class Peer:
    """Who is timed beside our step.

    Attributes:
        heading: of the column of its time over ours.
        name: in a sentence.
        target: the least such ratio that we aim at: 1 where being ahead is all.
    """

    heading: str
    name: str
    target: float = 1.0


PEERS: Mapping[str, Peer] = {
    "jax": Peer("× JAX", "JAX's jitted scan", 1.1),
    "torch_compile": Peer("× torch.compile", "`torch.compile`"),
    "ordinary": Peer("× ordinary loop", "the ordinary loop"),
    "pythae": Peer("× pythae", "pythae's trainer", 2.0),
}
"""By their names in the stored timings."""
LOG_LIKELIHOOD = Peer("× pythae", "pythae's `get_nll`", 50.0)


def sections(timings: Timings) -> list[Section]:
    """The section on peers; [] where they were not timed."""
    steps, bounds = timings.of("peer"), timings.of("peer_nll")
    steps = steps.sort_values(["network", "batch"])
    if steps.empty:
        return []
    tables = [_steps_table(steps), _bounds_table(bounds)]
    text = _takeaway(timings.where, steps, bounds)
    found = _entries(steps.iloc[0].versions).items()
    notes = prose(
        __file__,
        "peers",
        versions=escaped(", ".join(f"{name} {version}" for name, version in found)),
        torch=escaped(str(timings.machine.get("torch"))),
    )
    return [Section("Beside other libraries", text, "", tables, notes=notes)]


# --- tables ----------------------------------------------------------------------------------


def _steps_table(steps: pd.DataFrame) -> Table:
    """A line a cell: the fastest of its contestants is bold."""
    columns = ["network", Column("batch", 0), Column("ours, ms a step"), Column("of products")]
    columns += [Column(peer.heading) for peer in PEERS.values()]
    lines = []
    for _, case in steps.iterrows():
        ratios = {name: case[f"{name}_ratio"] for name in PEERS}
        fastest = min((r, name) for name, r in {"": 1.0, **ratios}.items() if pd.notna(r))[1]
        ours = Cell(1e3 * case.batch / case.rate, bold=not fastest)
        theirs = [
            Cell(ratio, reason=_reason(case, name), bold=name == fastest)
            for name, ratio in ratios.items()
        ]
        lines.append([case.network, case.batch, ours, case.bound_ratio, *theirs])
    caption = "Time of the same training step in each library, over ours; bold: the fastest."
    return Table("peer_speed", columns, lines, caption)


def _bounds_table(bounds: pd.DataFrame) -> Table:
    columns = ["network", Column("K", 0), Column("ours, samples/s", 0), Column("of products")]
    columns += [Column("pythae, samples/s", 0), Column(LOG_LIKELIHOOD.heading)]
    lines = [
        [
            case.network,
            case.K,
            Cell(case.rate, bold=not case.pythae_ratio < 1),
            case.bound_ratio,
            Cell(case.rate / case.pythae_ratio, reason=_reason(case, "pythae")),
            Cell(case.pythae_ratio, reason=_reason(case, "pythae"), bold=case.pythae_ratio < 1),
        ]
        for _, case in bounds.iterrows()
    ]
    caption = (
        "log p(x) of the same images by importance sampling: our compiled bound and `get_nll`."
    )
    return Table("peer_log_likelihood", columns, lines, caption)


def _reason(case: pd.Series, name: str) -> str:
    """Why a peer has no time in a case; "" where it has one."""
    return str(_entries(case.missing).get(name, ""))


def _entries(stored: object) -> Mapping[str, object]:
    """A label that is a mapping, in files that have it."""
    return stored if isinstance(stored, dict) else {}


# --- the sentence ----------------------------------------------------------------------------


def _takeaway(where: str, steps: pd.DataFrame, bounds: pd.DataFrame) -> str:
    """What the ratios say, on which processor, where we are not ahead, and which targets are
    missed."""
    found = {
        name: steps.set_index(["network", "batch"])[f"{name}_ratio"].dropna() for name in PEERS
    }
    found = {name: ratios for name, ratios in found.items() if len(ratios)}
    if not found:
        return "No peer could be timed."
    faster = [
        f"{span(ratios)} times as fast as {PEERS[name].name}" for name, ratios in found.items()
    ]
    text = f"On {escaped(where)} our training step is {listing(faster)}"
    behind = [_where(PEERS[name].name, ratios[ratios <= 1]) for name, ratios in found.items()]
    everyone = "all" if len(found) == len(PEERS) else "all that were timed"
    ahead = f": ahead of {everyone}."
    text += f"; not ahead of {listing(filter(None, behind))}." if any(behind) else ahead
    said = [text]
    goals = [_goal(PEERS[name], ratios) for name, ratios in found.items()]
    ratios = bounds.pythae_ratio.dropna()
    if len(ratios):
        most = (bounds.pythae_ratio / bounds.bound_ratio).dropna()
        limit = f"; its matrix products alone would allow {span(most)} times" if len(most) else ""
        said.append(
            f"The IW bound takes {span(ratios)} times as many samples a second as "
            f"{LOG_LIKELIHOOD.name}{limit}."
        )
        goals.append(_goal(LOG_LIKELIHOOD, ratios))
    goals = list(filter(None, goals))
    said += [f"Targets: at least {listing(goals)}."] * bool(goals)
    absent = [
        f"{peer.name} ({escaped(_reason(steps.iloc[0], name) or 'no reason stored')})"
        for name, peer in PEERS.items()
        if name not in found
    ]
    said += [f"Not timed: {listing(absent)}."] * bool(absent)
    return points(*said)


def _where(name: str, ratios: pd.Series) -> str:
    """`JAX's jitted scan at 784-400-20, batch 100 (0.97)`; "" for no cell."""
    cells = [f"{net}, batch {batch:,.0f} ({ratio:.2f})" for (net, batch), ratio in ratios.items()]
    return f"{name} at {listing(cells)}" if cells else ""


def _goal(peer: Peer, ratios: pd.Series) -> str:
    """`1.1 times JAX's jitted scan (missed in 2 of 4 cells)`; "" where being ahead is the goal."""
    missed = int((ratios < peer.target).sum())
    said = f"missed in {missed} of {len(ratios)} cells" if missed else "met in every cell"
    return f"{peer.target:g} times {peer.name} ({said})" if peer.target > 1 else ""
