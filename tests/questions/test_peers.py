"""Other libraries do the very step they are timed at, and the report says how ours compares.

What needs a library is skipped where the optional extra is not installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench import cli
from bench.config import REFERENCE, Run
from bench.data.binarization import as_float, binarize
from bench.data.dataset import load
from bench.errors import BenchError
from bench.inference.gradients import pathwise
from bench.inference.importance import iw_bound, log_weights
from bench.inference.native import compiler
from bench.inference.reparameterize import standard_normal
from bench.questions.throughput import peers, report, rivals, run_cases
from bench.questions.throughput.files import FILE, stored
from bench.questions.throughput.timings import LABELS, NUMBERS, Timings, read
from bench.report import rows as tidy
from bench.report.results import Results
from bench.training.loop import build
from bench.training.step import EagerStep, objective
from vaes import discover

ROOT = Path(__file__).parents[2]
D, H, L, B = 16, 8, 3, 20
TWO = discover().variants[REFERENCE]
ONE = rivals.one_hidden_layer(TWO)


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if find_spec(name) is None]
    reason = f"needs {', '.join(missing)}: 'make throughput PEERS=1' installs the extra"
    return pytest.mark.skipif(bool(missing), reason=reason)


def model_of(kind, spread: float = 1.0):
    run = Run(REFERENCE, "tiny", 0, epochs=1, latent_dim=L, hidden_dim=H, batch_size=B)
    model = build(run, kind, torch.full((D,), 0.3))
    with torch.no_grad():
        model.log_scale.weight.mul_(spread)
    return model


@pytest.fixture
def x() -> torch.Tensor:
    noise = torch.Generator().manual_seed(1)
    return torch.bernoulli(torch.full((B, D), 0.3), generator=noise)


def loss_of(model, x, noise) -> torch.Tensor:
    return objective(model, x, lambda n: noise.expand(n, -1, -1), pathwise)


# --- the same step ---------------------------------------------------------------------------


def test_one_hidden_layer_is_a_variant_like_its_base(x):
    model = model_of(ONE)
    sizes = [tuple(w.shape) for w in model.parameters() if w.ndim == 2]
    assert sorted(sizes) == sorted([(H, D), (L, H), (L, H), (H, L), (D, H)])
    assert model.decoder[-1].bias.detach().sigmoid().numpy() == pytest.approx(0.3)
    assert model.posterior(x).event_shape == (L,)
    assert model.decode(model.encode(x)).shape == x.shape


@needs("jax", "optax")
@pytest.mark.parametrize("kind", [TWO, ONE])
def test_jax_takes_our_step(x, kind):
    """The loss to 1e-4 and the weights after three steps, from the same weights, x and noise."""
    import optax
    from jax import numpy as jnp

    model = model_of(kind)
    optimizer, parameters = optax.adam(rivals.RATE), rivals.jax_parameters(model)
    carry = parameters, optimizer.init(parameters)
    ours = EagerStep(model, pathwise, Run(REFERENCE, "tiny", 0, epochs=1))
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        noise = torch.randn(1, B, L, generator=generator)
        carry, theirs = rivals.jax_step(optimizer, carry, jnp.array(x), jnp.array(noise[0]))
        own = ours(x, lambda n, noise=noise: noise, 1.0, rivals.RATE)
        assert float(theirs) == pytest.approx(own.item(), rel=1e-4)
    for name, layers in rivals.jax_parameters(model).items():
        for found, expected in zip(carry[0][name], layers, strict=True):
            for theirs, own in zip(found, expected, strict=True):
                assert np.asarray(theirs) == pytest.approx(np.asarray(own), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("kind", [TWO, ONE])
def test_the_plain_model_has_our_loss(x, kind):
    model = model_of(kind)
    theirs = rivals.Plain(model)
    assert not any(type(layer).__module__.startswith("vaes") for layer in theirs.modules())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        found = theirs(x)
        torch.manual_seed(3)
        noise = torch.randn(1, B, L)
    assert found.item() == pytest.approx(loss_of(model, x, noise).item(), rel=1e-4)


@needs("pythae")
@pytest.mark.parametrize("kind", [TWO, ONE])
def test_pythae_has_our_loss(x, kind):
    model = model_of(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        found = rivals.pythae_model(model)({"data": x}).loss
        torch.manual_seed(3)
        noise = torch.randn(1, B, L)
    assert found.item() == pytest.approx(loss_of(model, x, noise).item(), rel=1e-4)


@needs("pythae")
def test_pythae_has_our_log_likelihood(x):
    """Means of 20 estimates each, fixed seeds: within 5 standard errors (a false alarm in 10⁵).

    Which are far below what a forgotten KL would make.
    """
    model, x, k, times = model_of(TWO, spread=3).eval(), x[:5], 2000, 20
    with torch.no_grad():
        model.log_scale.bias.zero_()  # narrow proposals would need far more samples
    noise = standard_normal(len(x), L, torch.Generator().manual_seed(4))
    own = [iw_bound(log_weights(model, x, noise, k, k)).mean().item() for _ in range(times)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        theirs = rivals.pythae_log_likelihood(model, x, k, at_once=100)
        found = [theirs() for _ in range(times)]
    error = ((np.var(own, ddof=1) + np.var(found, ddof=1)) / times) ** 0.5
    assert abs(np.mean(own) - np.mean(found)) < 5 * error < 0.02


@needs(*run_cases.LIBRARIES)
@pytest.mark.parametrize("name", rivals.RIVALS)
def test_a_rival_trains(tiny, name):
    """An epoch's loss is in nats an image, and falls well below that of the first weights."""
    if name == "torch_compile" and compiler() is None:
        pytest.skip("torch.compile needs a C++ compiler")
    images = load(str(tiny)).train
    model = model_of(ONE)
    first = loss_of(model, binarize(images, torch.Generator()), torch.zeros(1, len(images), L))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        epoch = rivals.RIVALS[name](model, images, B)
        losses = [epoch() for _ in range(60)]
    assert 0.5 * first < np.mean(losses[-10:]) < 0.95 * first
    assert loss_of(model, as_float(images), torch.zeros(1, len(images), L)).isfinite()
    assert all(
        torch.equal(own, untouched)
        for own, untouched in zip(model.parameters(), model_of(ONE).parameters(), strict=True)
    ), "a rival moves its own copy"


# --- asking for them -------------------------------------------------------------------------


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch, capsys):
    found = find_spec
    absent = {"jax", "pythae"}
    monkeypatch.setattr(run_cases, "find_spec", lambda n: None if n in absent else found(n))
    monkeypatch.setattr(sys, "argv", ["bench", "throughput", "--peers"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    text = capsys.readouterr().out.strip()
    assert len(text.splitlines()) == 1
    assert "jax, " in text
    assert "'make throughput PEERS=1' installs" in text


def test_with_the_extra_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(run_cases, "find_spec", lambda name: object())
    run_cases.require_peers()


def test_the_lock_adds_what_is_imported_and_replaces_nothing():
    def pinned(name: str) -> set[str]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
        return {line.partition("==")[0].lower().replace("_", "-") for line in pins}

    extra = pinned("requirements-peers.lock")
    assert not extra & pinned("requirements.lock")
    assert not [name for name in extra if name.startswith(("torch", "nvidia", "jax-cuda"))]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[\w-]+", d).group() for d in project["optional-dependencies"]["peers"]}
    assert set(run_cases.LIBRARIES) <= declared <= extra


def test_make_installs_the_extra_only_when_asked(tmp_path):
    def planned(*arguments: str) -> str:
        command = ["make", "--dry-run", f"VENV={tmp_path}", "throughput", *arguments]
        outer = ("MAKE", "MFLAGS", "BENCH_ARG")  # `make test` hands down its own
        own = {name: v for name, v in os.environ.items() if not name.startswith(outer)}
        done = subprocess.run(
            command, cwd=ROOT, env=own, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "peers" not in planned()
    asked = planned("PEERS=1")
    assert "--no-deps -r requirements-peers.lock" in asked
    assert asked.rstrip().endswith("--peers")


@needs(*run_cases.LIBRARIES)
def test_a_peer_that_fails_does_not_lose_the_others(tiny, tmp_path, monkeypatch):
    """The real case on tiny images, with a JAX that cannot start."""
    if compiler() is None:
        pytest.skip("our compiled step needs a C++ compiler")
    monkeypatch.setenv("JAX_PLATFORMS", "abacus")
    only = "peer_training and one_hidden and not 1000"
    run_cases.run_cases(
        tmp_path, str(tiny), "cpu", (REFERENCE,), seconds=0.01, only=only, peers=True
    )
    (case,) = (b["extra_info"] for b in stored(tmp_path / FILE)["benchmarks"])
    timed = {name for name in peers.PEERS if f"{name}_ratio" in case}
    assert timed == peers.PEERS.keys() - {"jax"}
    assert case["missing"].keys() == {"jax"}
    assert case["bound_seconds"] > 0
    assert case["versions"].keys() == set(run_cases.LIBRARIES)
    assert (case["network"], case["items"]) == ("16-400-20", 100)
    (section,) = peers.sections(read(tmp_path / FILE))
    assert "Not timed: JAX's jitted scan (RuntimeError: " in section.takeaway


def test_without_being_asked_for_no_peer_is_timed(tmp_path):
    """pytest leaves 5 where it was given no case to run."""
    with pytest.raises(BenchError, match="cases failed"):
        run_cases.run_cases(tmp_path, "digits", "cpu", (REFERENCE,), only="peer")
    assert not (tmp_path / FILE).exists()


# --- the report ------------------------------------------------------------------------------


def cell(network: str = "784-400-20", batch: int = 100, **changes) -> dict:
    """100 images in 2 ms."""
    ratios = {"jax": 1.2, "torch_compile": 1.5, "ordinary": 2.0, "pythae": 2.5}
    case = {f"{name}_ratio": ratio for name, ratio in ratios.items()}
    case |= {
        "bound_ratio": 0.5,
        "kind": "peer",
        "network": network,
        "batch": batch,
        "items": batch,
        "seconds": 0.002,
    }
    return case | {"missing": {}, "versions": {"jax": "0.1", "pythae": "0.2"}} | changes


def bound(**changes) -> dict:
    case = {"kind": "peer_nll", "network": "784-400-20", "K": 1000, "items": 10_000}
    return (
        case | {"seconds": 0.05, "pythae_ratio": 4.0, "bound_ratio": 0.8, "missing": {}} | changes
    )


def section_of(*cases: dict):
    frame = pd.DataFrame(cases).reindex(columns=[*LABELS, *NUMBERS])
    frame[NUMBERS] = frame[NUMBERS].apply(pd.to_numeric)
    (section,) = peers.sections(Timings(frame, {"torch": "2.0"}))
    return section


def test_the_report_knows_every_contestant():
    assert peers.PEERS.keys() == rivals.RIVALS.keys() | {"ordinary"}
    assert {f"{name}_ratio" for name in peers.PEERS} <= set(NUMBERS)


def test_a_line_a_cell_with_the_fastest_in_bold():
    section = section_of(cell(batch=1000, items=1000, seconds=0.02), cell(jax_ratio=0.9), bound())
    steps, log_likelihood = section.tables
    lines = steps.markdown().splitlines()[2:]
    assert lines == [
        "| 784-400-20 | 100 | 2.00 | 0.50 | **0.90** | 1.50 | 2.00 | 2.50 |",
        "| 784-400-20 | 1,000 | **20.00** | 0.50 | 1.20 | 1.50 | 2.00 | 2.50 |",
    ]
    (line,) = log_likelihood.markdown().splitlines()[2:]
    assert line == "| 784-400-20 | 1,000 | **200,000** | 0.80 | 50,000 | 4.00 |"
    assert "jax 0.1, pythae 0.2, torch 2.0" in " ".join(section.notes.split())


def test_the_sentence_says_where_we_are_ahead_and_which_targets_hold():
    text = section_of(cell(), cell(batch=1000, pythae_ratio=1.9), bound()).takeaway
    assert "1.20 times as fast as JAX's jitted scan" in text
    assert "1.90–2.50 times as fast as pythae's trainer: ahead of all." in text
    assert "4.00 times as many samples a second as pythae's `get_nll`" in text
    assert "; its matrix products alone would allow 5.00 times." in text
    assert "1.1 times JAX's jitted scan (met in every cell)" in text
    assert "2 times pythae's trainer (missed in 1 of 2 cells)" in text
    assert "50 times pythae's `get_nll` (missed in 1 of 1 cells)" in text


def test_the_sentence_says_plainly_where_we_are_behind():
    text = section_of(cell(jax_ratio=0.97), cell("784-200-200-20", 1000)).takeaway
    assert "; not ahead of JAX's jitted scan at 784-400-20, batch 100 (0.97)." in text
    assert "ahead of all" not in text
    assert "1.1 times JAX's jitted scan (missed in 1 of 2 cells)" in text


def test_a_peer_without_times_is_named_with_its_reason():
    failed = cell(jax_ratio=np.nan, missing={"jax": "ImportError: no"})
    section = section_of(failed, bound(pythae_ratio=np.nan, missing={"pythae": "E: gone"}))
    assert "Not timed: JAX's jitted scan (ImportError: no)." in section.takeaway
    assert "get_nll" not in section.takeaway
    steps, log_likelihood = section.tables
    assert steps.markdown().splitlines()[2].split("|")[5].strip() == "n/a"
    assert "n/a" in log_likelihood.markdown()
    nobody = {f"{name}_ratio": np.nan for name in peers.PEERS}
    assert section_of(cell(**nobody)).takeaway == "No peer could be timed."


def test_without_peers_there_is_no_section(tmp_path):
    committed = next((ROOT / "results").glob(f"*/cpu/{FILE}"))
    timings = read(committed)
    others = replace(timings, cases=timings.cases[timings.cases.kind != "peer"])
    assert peers.sections(others) == []
    assert report.sections(Results(committed.parent, tidy.frame([])))
