"""The steps: what each shows, and what it must find.

A step yields lines of what it finds and raises BenchError where that is not as it must be.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.config import SIZES, Run, of_dataset
from bench.data.binarization import as_float
from bench.data.dataset import Dataset, load
from bench.errors import BenchError
from bench.inference.elbo import elbo_terms, mean_elbo
from bench.inference.reparameterize import is_map_of_noise
from bench.machine.places import ROOT
from bench.questions import measured
from bench.questions.throughput import run_cases as timing
from bench.questions.throughput.files import stored
from bench.randomness import generator
from bench.report import results
from bench.report import rows as tidy
from bench.statistics import Estimate, holm, interval, p_value
from bench.training.loop import Trained, restore, train
from bench.training.stacked import Stack, train_stacked
from vaes import VAE, Autoencoder, discover

SEEDS = 5
LEAST = {"ordinary": 20.0, "lean": 5.0}
"""× that five stacked seeds must be as fast as five trainings by that loop."""
SAME_STEPS = 50
SAME_LOSS = 1e-3
"""Largest relative difference of a captured step's loss from the eager one's, over `SAME_STEPS`."""
SAME_ELBO = 1e-4
"""Largest relative difference of an image's ELBO on two devices: the same weights and noise."""
FALSE_ALARM = 0.01
"""Probability that trainings alike on both devices are said to differ, over all variants."""
ELBO_DRAWS = 20
STEPS_A_MINUTE = 30
"""Training steps behind the comparison of ELBOs, for each minute of the whole check."""
CASES = (
    "test_training and not estimator",
    "evaluation or importance",
    "estimator and not memory",
    "test_step or precision or rate or bandwidth",
    "first_step and not estimator",
)
"""Throughput cases timed together, as pytest's `-k`; those of most value first."""
FIRST_QUESTIONS = (("headline",), ("loss_noise", "gradient_noise", "estimator_training"))
"""Questions measured together, before all the others."""


@dataclass(frozen=True)
class Check:
    """What was asked for.

    Attributes:
        device: `cuda`, or `cpu` for a rehearsal, which proves nothing of a GPU.
        dataset, variants, preset: what is trained and timed.
        minutes: of the whole.
        results: the root of the folders of results; the check's is `<dataset>/<device>` in it.
    """

    device: str
    dataset: str
    variants: tuple[str, ...]
    preset: str
    minutes: float
    results: str

    @property
    def folder(self) -> Path:
        return Path(self.results) / self.dataset / self.device

    def run(self, variant: str, seed: int = 0, **changes) -> Run:
        """A run of the headline's shapes, of one step unless it is changed."""
        latent, hidden = of_dataset(SIZES, self.dataset)
        run = Run(variant, self.dataset, seed, 1, latent, hidden, steps=1, device=self.device)
        return run.with_(**changes)


@dataclass(frozen=True)
class Step:
    """One thing to show: what it is, its weight in sharing the time left, and what does it.

    `work` yields lines of what it finds and raises BenchError where that is not as it must be.
    """

    name: str
    weight: float
    work: Callable[[Check], Iterator[str]]


def gpu_tests(check: Check) -> Iterator[str]:
    """`pytest -m gpu`: all pass, and on a GPU none is skipped."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    sys.stderr.write(done.stdout)
    lines = done.stdout.strip().splitlines() or ["no output"]
    yield lines[-1]
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|skipped)", lines[-1])}
    if done.returncode or (check.device == "cuda" and ("skipped" in counts or not counts)):
        yield from (line for line in lines if line.startswith(("FAILED", "ERROR")))
        raise BenchError(f"pytest -m gpu: {lines[-1]}")


def stacked_seeds(check: Check) -> Iterator[str]:
    """Five seeds in one captured step against five trainings, ordinary and lean."""
    cases = _timed(check, "test_stacked_training")
    if check.device != "cuda":
        yield "timed on CUDA alone"
        return
    yield from too_slow(cases, check.variants)


def too_slow(cases: list[dict], variants: tuple[str, ...]) -> Iterator[str]:
    """A line a stacked case; raises BenchError where one gains too little or is missing."""
    slow = []
    for case in cases:
        name = case["variant"]
        # a companion trains one seed in its step, the stack all of them
        gains = {loop: case[f"{loop}_ratio"] * case["items"] / 100 for loop in LEAST}
        yield f"{name}: " + ", ".join(f"{g:.1f} x the {loop} loop" for loop, g in gains.items())
        slow += [
            f"{name} {gain:.1f} x the {loop} loop, not {LEAST[loop]:g}"
            for loop, gain in gains.items()
            if not gain >= LEAST[loop]
        ]
    timed = {case["variant"] for case in cases}
    slow += [f"{name} was not timed" for name in variants if name not in timed]
    if slow:
        raise BenchError("; ".join(slow))


def captured_graphs(check: Check) -> Iterator[str]:
    """The captured step against the same step, launched kernel by kernel."""
    data, wrong = load(check.dataset).to(check.device), []
    for variant in check.variants:
        runs = [check.run(variant, seed) for seed in range(SEEDS)]
        kind = discover().variants[variant]
        try:
            captured, eager = Stack(runs, kind, data), Stack(runs, kind, data)
        except BenchError as reason:
            yield f"{variant}: trained seed by seed ({reason})"
            continue
        furthest = 0.0
        orders = zip(captured.indices(), eager.indices(), range(SAME_STEPS))
        for one, other, _ in orders:
            losses = captured(one, runs[0].learning_rate, 1.0).double().cpu()
            expected = eager._step(other).double().cpu()
            furthest = max(furthest, ((losses - expected) / expected).abs().max().item())
        yield f"{variant}: losses of {SAME_STEPS} steps within {furthest:.1e} of themselves"
        if not furthest <= SAME_LOSS:
            wrong.append(f"{variant} {furthest:.1e}")
    if wrong:
        raise BenchError(f"captured losses differ by more than {SAME_LOSS:g}: {', '.join(wrong)}")


def agreement_with_the_cpu(check: Check) -> Iterator[str]:
    """ELBOs of the same weights and noise image by image, and of short trainings over seeds."""
    here = load(check.dataset)
    there, wrong = here.to(check.device), []
    differences: dict[str, Estimate] = {}
    steps = max(20, round(STEPS_A_MINUTE * check.minutes))
    for variant in check.variants:
        kind = discover().variants[variant]
        runs = [check.run(variant, s, steps=steps, device="cpu") for s in range(SEEDS)]
        by_cpu = [train(run, kind, here) for run in runs]
        furthest = _furthest(by_cpu[0], kind, here.test, check.device)
        by_device = _trained([run.with_(device=check.device) for run in runs], kind, there)
        values = [_score(t, kind, here) for t in by_cpu], [_score(t, kind, here) for t in by_device]
        differences[variant] = interval(b - a for a, b in zip(*values, strict=True))
        found, what = differences[variant], "ELBO" if issubclass(kind, VAE) else "log-likelihood"
        yield (
            f"{variant}: the same weights within {furthest:.1e} an image; {what} after {steps} "
            f"steps, {check.device} - cpu, {found.mean:+.3f} ± {found.half_width:.3f} nats "
            f"({SEEDS} seeds)"
        )
        if not furthest <= SAME_ELBO:
            wrong.append(f"{variant}: the same weights differ by {furthest:.1e} an image")
    rejected = holm([p_value(d) for d in differences.values()], FALSE_ALARM)
    wrong += [f"{v}: trainings differ" for v, bad in zip(differences, rejected) if bad]
    yield f"trainings alike would be said to differ with probability {FALSE_ALARM:g}"
    if wrong:
        raise BenchError("; ".join(wrong))


def throughput_table(check: Check) -> Iterator[str]:
    """The throughput cases, group by group; what is timed is stored with each."""
    failed = []
    for only in CASES:
        try:
            yield f"{len(_timed(check, only))} cases of {only}"
        except BenchError as error:
            failed.append(str(error))
    if failed:
        raise BenchError("; ".join(failed))


def whole_bench(check: Check) -> Iterator[str]:
    """`bench run`, a few questions at a time; what was measured is stored with each."""
    asked = {name for names in FIRST_QUESTIONS for name in names}
    others = tuple(q.name for q in measured() if q.name not in asked)
    for names in (*FIRST_QUESTIONS, others):
        options = {
            "dataset": check.dataset,
            "device": check.device,
            "preset": check.preset,
            "variants": ",".join(check.variants),
            "questions": ",".join(names),
            "results": check.results,
        }
        if set(check.variants) == set(discover().variants):
            del options["variants"]
        started = time.monotonic()
        _bench("run", options)
        yield f"{', '.join(names)}: measured in {time.monotonic() - started:.0f} s"


def pages(check: Check) -> Iterator[str]:
    """The pages again, with whatever was timed and measured."""
    if not list(Path(check.results).glob(f"*/*/{tidy.FILE}")):
        yield "no rows to show"
        return
    _bench("report", {"results": check.results})
    yield f"{Path(check.results) / 'index.html'}"


STEPS = (
    Step("gpu tests", 90, gpu_tests),
    Step("stacked seeds", 90, stacked_seeds),
    Step("captured graphs", 45, captured_graphs),
    Step("agreement with the CPU", 90, agreement_with_the_cpu),
    Step("throughput", 90, throughput_table),
    Step("bench", 165, whole_bench),
    Step("pages", 30, pages),
)
"""In order of value; the weights are seconds of ten minutes."""


def _bench(name: str, options: dict[str, str]) -> None:
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    command = [sys.executable, "-m", "bench", name, *words]
    if code := subprocess.run(command, cwd=ROOT).returncode:
        raise BenchError(f"'{' '.join(command[1:])}' ended with exit code {code}")


def _timed(check: Check, only: str) -> list[dict]:
    """Run these throughput cases into the stored ones; their labels and seconds."""
    path = check.folder / timing.FILE
    before = _cases(path)
    asked = check.folder, check.dataset, check.device, check.variants
    timing.run_cases(*asked, seconds=timing.BRIEF_SECONDS, only=only)
    results.record(check.folder)
    return [case["extra_info"] for case in _cases(path) if case not in before]


def _cases(path: Path) -> list[dict]:
    return stored(path)["benchmarks"] if path.exists() else []


def _trained(runs: list[Run], kind: type[Autoencoder], data: Dataset) -> list[Trained]:
    """These seeds trained as the bench does it on a GPU: together where they can be."""
    try:
        return train_stacked(runs, kind, data)
    except BenchError:
        return [train(run, kind, data) for run in runs]


def _score(trained: Trained, kind: type[Autoencoder], data: Dataset) -> float:
    """The mean test ELBO (of an autoencoder, log p(x|code)) at the end, on the CPU, in nats."""
    model = restore(trained, kind, data.test.shape[1], "end", "cpu")
    noise = generator("cpu", "gpu check", trained.run.seed)
    found = mean_elbo(model, as_float(data.test), noise, ELBO_DRAWS, at_once=100)
    name, sign = ("elbo", 1) if isinstance(model, VAE) else ("distortion", -1)
    return sign * found[name][0].mean().item()


def _furthest(trained: Trained, kind: type[Autoencoder], test: Tensor, device: str) -> float:
    """The largest relative difference of an image's ELBO on the CPU and on the device.

    The weights and the noise are the same; of a posterior that draws by itself and of an
    autoencoder, log p(x|code) is compared.
    """
    noise = torch.randn(ELBO_DRAWS, len(test), trained.run.latent_dim, generator=generator("cpu"))

    def on(place: str) -> Tensor:
        x = as_float(test.to(place))
        model = restore(trained, kind, x.shape[1], "end", place)
        with torch.no_grad():
            if not isinstance(model, VAE) or not is_map_of_noise(model.posterior(x), x):
                return model.log_likelihood(x, model.encode(x)).double().cpu()
            distortion, rate = elbo_terms(model, x, lambda n: noise.to(place), ELBO_DRAWS)
            return -(distortion + rate).double().mean(0).cpu()

    here, there = on("cpu"), on(device)
    return ((there - here) / here).abs().max().item()
