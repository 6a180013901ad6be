"""Everything that only a GPU can show, in one command of ten minutes; rehearsed on a CPU.

Steps run in order of value, each in a process of its own with its share of the time that is left.
One that fails or runs out of time is said, and the next goes on. What a step has found is written
as it is found, so that nothing is lost wherever the time ends.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from bench.config import SMALL, Run
from bench.data.binarization import as_float
from bench.data.dataset import Dataset, load
from bench.errors import BenchError
from bench.grid.environment import commit, machine
from bench.inference.elbo import elbo_terms, mean_elbo
from bench.inference.reparameterize import is_map_of_noise
from bench.questions import measured
from bench.questions.throughput import run_cases as timing
from bench.questions.throughput.files import stored
from bench.randomness import generator
from bench.statistics import Estimate, holm, interval, p_value
from bench.storage import write_atomically
from bench.training.loop import Trained, restore, train
from bench.training.stacked import Stack, train_stacked
from vaes import VAE, Autoencoder, discover

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "results"
LOG = "gpu-check.log"
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
GRACE_SECONDS = 5
SPARE_SECONDS = 2
"""Of every minute, for starting and for ending what is out of time."""
LAST_LINES = 15
NOT_SO = 3
"""Exit code of a step that did its work and found something else than it must."""
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
        latent, hidden = SMALL.get(self.dataset, (20, 200))
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


# --- the command -----------------------------------------------------------------------------


def gpu_check(
    device: str,
    dataset: str,
    variants: str,
    preset: str,
    minutes: float,
    results: Path | None,
    console: Console,
) -> int:
    """`python -m bench gpu-check`: the exit code, 0 only where every step was done and right."""
    if device not in ("cpu", "cuda"):
        raise BenchError(f"--device {device}: must be cuda, or cpu to rehearse")
    if device == "cuda" and not torch.cuda.is_available():
        console.print("no CUDA device: rehearse with --device cpu", style="red", markup=False)
        return 1
    if device == "cpu" and results is None:
        results = Path(tempfile.mkdtemp(prefix="gpu-check-"))
    results = results or COMMITTED
    if device == "cpu" and results.resolve() == COMMITTED.resolve():
        raise BenchError("a rehearsal must not write into results/: name another with --results")
    if Path(dataset).suffix or load(dataset).binarization == "real":
        raise BenchError(f"gpu-check trains on built-in images, not on '{dataset}'")
    known = discover().variants
    names = tuple(known) if variants == "all" else tuple(variants.split(","))
    if unknown := [name for name in names if name not in known]:
        raise BenchError(f"unknown variant '{unknown[0]}'")
    check = Check(device, dataset, names, preset, minutes, str(results.resolve()))
    check.folder.mkdir(parents=True, exist_ok=True)
    with (check.folder / LOG).open("w", encoding="utf-8") as log:

        def say(line: str) -> None:
            console.print(line, markup=False, soft_wrap=True)
            log.write(line + "\n")
            log.flush()

        return _run(check, say)


def _run(check: Check, say: Callable[[str], None]) -> int:
    """Do the steps within the time; 1 where one failed or was left out."""
    on_gpu = check.device == "cuda"
    where = torch.cuda.get_device_name() if on_gpu else f"{machine()} (a rehearsal: no GPU)"
    say(f"{where}, torch {torch.__version__}, commit {commit()}, {check.minutes:g} minutes")
    end = time.monotonic() + (60 - SPARE_SECONDS) * check.minutes
    good: list[str] = []
    bad: list[str] = []
    for place, step in enumerate(STEPS):
        left = end - time.monotonic()
        share = left * step.weight / sum(other.weight for other in STEPS[place:])
        if left < 1:
            say(f"{step.name}: left out, no time left")
            bad.append(f"{step.name} (left out)")
            continue
        say(f"{step.name}: up to {share:.0f} s")
        started = time.monotonic()
        state = _attempt(step, check, share, say)
        say(f"{step.name}: {state or 'done'} after {time.monotonic() - started:.0f} s")
        if state:
            bad.append(f"{step.name} ({state})")
        else:
            good.append(step.name)
    say(f"{'proven' if on_gpu else 'rehearsed, proving nothing'}: {'; '.join(good) or 'nothing'}")
    say(f"not {'proven' if on_gpu else 'rehearsed'}: {'; '.join(bad) or 'nothing'}")
    return int(bool(bad))


def _attempt(step: Step, check: Check, seconds: float, say: Callable[[str], None]) -> str:
    """Do a step in a process of its own; "" or what became of it."""
    code = "import sys; from bench.gpu_check import work; work(*sys.argv[1:])"
    command = [sys.executable, "-c", code, step.name, json.dumps(asdict(check))]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,
        ) as process:
            timer = _Deadline(process, seconds)
            for line in process.stdout or ():
                say(f"  {line.rstrip()}")
            code_found = process.wait()
            timer.cancel()
        if timer.passed:
            return "out of time"
        if code_found == 0:
            return ""
        if code_found != NOT_SO:  # it broke: its last words
            output.seek(0)
            for line in output.read().splitlines()[-LAST_LINES:]:
                say(f"  | {line}")
        return "failed"


class _Deadline:
    """Ends a process and all that it started when its time is over: asked first, then forced."""

    def __init__(self, process: subprocess.Popen, seconds: float) -> None:
        self.process, self.passed = process, False
        self.timer = threading.Timer(seconds, self._end)
        self.timer.daemon = True
        self.timer.start()

    def cancel(self) -> None:
        self.timer.cancel()

    def _end(self) -> None:
        self.passed = True
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, kind)
                self.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                return


def work(name: str, check: str) -> None:
    """Meant for a process of its own: do the step of that name; exit code `NOT_SO` where it is not.

    What it finds goes to standard output, line by line; what its programs say to the error output.
    """
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    torch.set_num_threads(1)  # two on a busy machine were seen to be 25 times slower
    (step,) = (step for step in STEPS if step.name == name)
    asked = json.loads(check)
    try:
        for line in step.work(Check(**asked | {"variants": tuple(asked["variants"])})):
            print(line, file=told, flush=True)
    except BenchError as error:
        print(f"not so: {' '.join(str(error).split())}", file=told, flush=True)
        sys.exit(NOT_SO)


# --- the steps -------------------------------------------------------------------------------


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
    for only in CASES:
        found = _timed(check, only)
        yield f"{len(found)} cases of {only}"


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
    if not list(Path(check.results).glob("*/*/rows.csv")):
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
    """Run these throughput cases and add them to the stored ones; their labels and seconds."""
    path = check.folder / timing.FILE
    with tempfile.TemporaryDirectory() as place:
        asked = Path(place), check.dataset, check.device, check.variants
        timing.run_cases(*asked, seconds=timing.BRIEF_SECONDS, only=only)
        made = Path(place) / timing.FILE
        if not made.exists():  # every case was skipped
            return []
        found = stored(made)
    new = {case["name"] for case in found["benchmarks"]}
    old = stored(path)["benchmarks"] if path.exists() else []
    whole = [*(case for case in old if case["name"] not in new), *found["benchmarks"]]
    write_atomically(path, (json.dumps(found | {"benchmarks": whole}, indent=1) + "\n").encode())
    return [case["extra_info"] for case in found["benchmarks"]]


def _trained(runs: list[Run], kind: type[Autoencoder], data: Dataset) -> list[Trained]:
    """These seeds trained as the bench does it on a GPU: together where they can be."""
    try:
        return train_stacked(runs, kind, data)
    except BenchError:
        return [train(run, kind, data) for run in runs]


def _score(trained: Trained, kind: type[Autoencoder], data: Dataset) -> float:
    """The mean test ELBO (of an autoencoder, log p(x|code)) at the end, on the CPU, in nats."""
    model = restore(trained, kind, "end", "cpu")
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
        model, x = restore(trained, kind, "end", place), as_float(test.to(place))
        with torch.no_grad():
            if not isinstance(model, VAE) or not is_map_of_noise(model.posterior(x), x):
                return model.log_likelihood(x, model.encode(x)).double().cpu()
            distortion, rate = elbo_terms(model, x, lambda n: noise.to(place), ELBO_DRAWS)
            return -(distortion + rate).double().mean(0).cpu()

    here, there = on("cpu"), on(device)
    return ((there - here) / here).abs().max().item()
