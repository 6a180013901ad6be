"""Published rows: whole, trained as they say, and judged by their tolerance."""

from __future__ import annotations

import io
import math
import threading
from dataclasses import replace

import pandas as pd
import pytest
import torch
from rich.console import Console

from bench.commands import configuration, contestants, validation
from bench.config import PRESETS, Run
from bench.data import files as download
from bench.errors import BenchError
from bench.options import Config
from bench.questions.published import closed_forms, measure, report
from bench.questions.published.measure import Conditions
from bench.questions.published.published import Number, Published, read, rows
from bench.statistics import Estimate
from tests.subjects import small_data, subject

ROWS = rows()
FEW = {"draws": 10_000, "relative_error": math.inf}
"""Estimates behind a variance where it is not what is tested."""


@pytest.mark.parametrize("name", ROWS)
def test_the_conditions_of_a_row_are_options_of_a_run(name):
    row = ROWS[name]
    for options in (row.options, {**row.options, **row.minus}):
        config = configuration.config_of(options)
        configuration.check(config)
        assert config.learning_rate != "auto"
    assert row.epochs[-1] == config.epochs
    variant = str(validation.ROOT / row.variant) if "/" in row.variant else row.variant
    assert contestants.variants_named(variant, Console(quiet=True))
    for number in row.numbers:
        judged = [number.tolerance, number.at_least, row.lengths or None]
        assert sum(how is not None for how in judged) == 1


def test_a_file_that_is_no_row_is_named(tmp_path):
    file = tmp_path / "mine.toml"
    for text, words in (
        ("title = ", "mine.toml is no published row"),
        ('title = "x"', "'published'"),
        ('published = [{quantity = "elbow", value = 1}]', "missing"),
    ):
        file.write_text(text)
        with pytest.raises(BenchError, match=words):
            read(file)
    file.write_text(
        'title = "x"\nsource = "y"\noptions = {epochs = 1}\n'
        'published = [{quantity = "elbow", value = 1}]'
    )
    with pytest.raises(BenchError, match="did you mean 'elbo'"):
        read(file)


def test_an_option_that_is_none_is_named():
    with pytest.raises(BenchError, match="did you mean 'latent'"):
        configuration.config_of({"lantent": 2})
    assert configuration.config_of({"hidden": [400]}).hidden == "400,"
    assert configuration.config_of({"batch-size": 20}).batch_size == 20


@pytest.mark.parametrize(
    ("number", "ours", "said"),
    [
        (Number("elbo", -100, tolerance=0.6), -100.6, "agrees"),
        (Number("elbo", -100, tolerance=0.6), -99.3, "missed"),
        (Number("elbo", 0.3, at_least=0.1), 0.2, "same direction"),
        (Number("elbo", -0.3, at_least=0.1), -0.2, "same direction"),
        (Number("elbo", -0.3, at_least=0.1), 0.2, "missed"),
        (Number("elbo", 0.3, at_least=0.1), 0.05, "missed"),
        (Number("elbo", 0.3, at_least=0.1), -0.2, "missed"),
        (Number("elbo", -100, tolerance=0.6), math.nan, "not run"),
    ],
)
def test_a_number_is_judged_by_its_tolerance(number, ours, said):
    assert report.verdict(number, number.value, Estimate(ours, 0.05)) == said


def values(*lines: tuple) -> pd.DataFrame:
    """Lines of (minus, epochs, seed, value) of a row `way` and its log-likelihood."""
    known = [
        {
            "row": "way",
            "quantity": "log_likelihood",
            "standard_error": 0.5,
            "seconds": 60.0,
            "trained_epochs": epochs,
            **{"minus": minus, "epochs": epochs, "seed": seed, "value": value},
        }
        for minus, epochs, seed, value in lines
    ]
    return pd.DataFrame(known, columns=[*report.COLUMNS])


WAY = Published(
    "way",
    "The way",
    "somewhere",
    {"epochs": 9},
    [Number("log_likelihood", -80.0)],
    lengths=(1, 3, 9),
)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ((-99, -95, -90), "rises"),
        ((-99, -89, -90), "missed"),
        ((-99, -95, -79), "missed"),
        ((-99, -95, math.nan), "not run"),
    ],
)
def test_a_way_rises_toward_what_was_published(path, said):
    known = values(*((False, n, 0, v) for n, v in zip(WAY.lengths, path) if not math.isnan(v)))
    *others, last = report.table({"way": WAY}, known).lines
    assert last[-1].text == said
    assert not any(line[-1].text for line in others)


def test_a_loss_of_grey_pixels_shares_no_table_with_likelihoods():
    options = {"epochs": 9, "binarize": "none"}
    numbers = [Number("log_likelihood", -80.0, tolerance=0.6)]
    grey = replace(WAY, name="grey", options=options, numbers=numbers, lengths=())
    known = values((False, 9, 0, -80.0)).assign(row="grey")
    known = pd.concat([values((False, 9, 0, -85.0)), known])
    closed = pd.DataFrame(closed_forms.lines("pathwise", **FEW))
    page = report.page({"way": WAY, "grey": grey}, known, closed)
    likelihoods, apart = page.split("Of grey pixels, which have no likelihood:")
    assert "test log p(x)" in likelihoods
    assert "test log p(x)" not in apart.split("Sources")[0]
    assert report.GREY in apart


def test_a_difference_is_paired_by_seed():
    row = Published(
        "way",
        "A difference",
        "somewhere",
        {"epochs": 9},
        [Number("log_likelihood", 1.0, at_least=0.5)],
        minus={"estimator": "iwae"},
        seeds=2,
    )
    known = values((False, 9, 0, 11.0), (False, 9, 1, 22.0), (True, 9, 0, 10.0), (True, 9, 1, 20.0))
    found = report.ours(known, row, "log_likelihood", 9)
    assert (found.mean, found.n) == (1.5, 2)
    one = report.ours(known[known.seed == 0], row, "log_likelihood", 9)
    assert one.mean == 1.0
    assert one.half_width == pytest.approx(1.96 * math.hypot(0.5, 0.5), rel=1e-4)


def test_rows_are_made_again_and_kept(tmp_path, inline, monkeypatch):
    """The row of probabilistic PCA, shortened, through the command; a second run keeps it."""
    monkeypatch.setattr(validation, "Workers", lambda *arguments: inline)
    short = {name: ROWS[name] for name in ("exact_ppca", "pytorch_example")}
    options = {**short["exact_ppca"].options, "epochs": 2}
    short["exact_ppca"] = Published(**{**vars(short["exact_ppca"]), "options": options})
    monkeypatch.setattr(validation, "rows", lambda: short)
    config = Config(results=tmp_path / "r", cache=tmp_path / "c", device="cpu")
    text = io.StringIO()
    console = Console(file=text, width=200)
    code = validation.validate(config, "exact_ppca", console, **FEW)
    page = (tmp_path / "r/validation/README.md").read_text(encoding="utf-8")
    assert "published: 1 agrees" in text.getvalue(), text.getvalue()
    assert (
        "What theory says of our own models (of 1 row): 1 agrees. 1 of 2 rows was not run." in page
    )
    assert "Published numbers" not in page.partition("| published by")[0].partition("\n\n")[2]
    assert "Not run: PyTorch's VAE example." in page
    stored = pd.read_csv(tmp_path / "r/validation/values.csv")
    assert set(stored.quantity) == {"log_likelihood", "exact_log_likelihood"}
    assert code == int("missed" in page)
    with pytest.raises(BenchError, match="did you mean 'exact_ppca'"):
        validation.validate(config, "exact_pca", console)


def test_a_failure_does_not_replace_what_is_known():
    known = values((False, 9, 0, -80.0))
    failure = {"row": "way", "minus": False, "reason": "no memory"}
    found = validation._beside_others([failure, {**failure, "row": "new"}], known)
    assert found.value.dropna().tolist() == [-80.0]
    assert found.row.tolist() == ["new", "way"]


def test_a_difference_whose_interval_holds_zero_has_no_direction():
    number = Number("elbo", 0.3, at_least=0.1)
    assert report.verdict(number, 0.3, Estimate(0.2, 0.3)) == "missed"


def test_rows_of_which_none_takes_minutes_are_refused_with_the_quick_preset(tmp_path):
    config = Config(results=tmp_path / "r", cache=tmp_path / "c", preset="quick", device="cpu")
    with pytest.raises(BenchError, match="none of 'burda_2016_vae' takes minutes"):
        validation.validate(config, "burda_2016_vae", Console(quiet=True))


def test_a_row_is_stored_once_it_is_made(tmp_path, inline, monkeypatch):
    """Also where the run is stopped before the next."""

    def execute(grid, *rest):
        if dict(grid.overrides)["epochs"] == 3:
            assert first_is_stored.wait(30)
            raise KeyboardInterrupt
        return whole(grid, *rest)

    def write(path, content):
        write_whole(path, content)
        if path.name == validation.VALUES:
            first_is_stored.set()

    first_is_stored = threading.Event()
    whole, write_whole = validation.execute, validation.write_atomically
    monkeypatch.setattr(validation, "write_atomically", write)
    monkeypatch.setattr(validation, "Workers", lambda *arguments: inline)
    monkeypatch.setattr(validation, "execute", execute)
    row = ROWS["exact_ppca"]
    first, second = (replace(row, options={**row.options, "epochs": n}) for n in (2, 3))
    both = {"exact_ppca": first, "second": replace(second, name="second")}
    monkeypatch.setattr(validation, "rows", lambda: both)
    config = Config(results=tmp_path / "r", cache=tmp_path / "c", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        validation.validate(config, "all", Console(quiet=True), **FEW)
    stored = pd.read_csv(tmp_path / "r/validation/values.csv")
    assert set(stored.row) == {"exact_ppca"}
    page = (tmp_path / "r/validation/README.md").read_text(encoding="utf-8")
    assert "1 of 2 rows was not run" in page


def test_a_row_without_its_data_is_left_out_and_the_rest_goes_on(tmp_path, inline, monkeypatch):
    def absent(*arguments):
        raise BenchError("no such data: check the path")

    monkeypatch.setattr(validation, "Workers", lambda *arguments: inline)
    monkeypatch.setattr(validation, "load", absent)
    validation._loaded.cache_clear()
    text = io.StringIO()
    config = Config(results=tmp_path / "r", cache=tmp_path / "c", preset="quick", device="cpu")
    code = validation.validate(config, "all", Console(file=text, width=200), **FEW)
    validation._loaded.cache_clear()
    assert code == 1
    assert "left out: exact_ppca: no such data: check the path" in text.getvalue()
    assert (tmp_path / "r/validation/closed_forms.csv").exists()


@pytest.mark.parametrize("name", closed_forms.ESTIMATED)
def test_a_line_each_number_of_samples_and_parameter(name):
    found = closed_forms.lines(name, 2000)
    assert {(line["S"], line["parameter"]) for line in found} >= {(2, "μ"), (2, "log σ")}


@pytest.mark.parametrize("name", ["score_function", "pathwise_antithetic"])
def test_variances_are_measured_until_they_are_precise(name):
    """With more draws than were asked for, and none where theory has zero."""
    few = closed_forms.measured(name, 2, 1000)
    more = closed_forms.measured(name, 2, 1000, 0.02)
    for exact, (_, before), (value, after) in zip(closed_forms.variances(name, 2), few, more):
        if exact:
            assert after <= 0.02 * exact < before
            assert abs(value - exact) < 4.5 * after
        else:
            assert value < 1e-20


def test_conditions_name_lengths_that_share_a_trunk():
    conditions = Conditions(("elbo",), (50, 100), 10, "end")
    run = Run("input_dependent", "mnist", 0, 100, learning_rate=1e-3)
    short, long = conditions.requests(run, PRESETS["default"])
    assert (short.run.epochs, short.run.learning_rate) == (50, None)
    assert long.run == run


@pytest.mark.slow
def test_the_training_elbo_is_of_images_as_training_sees_them(monkeypatch):
    """Binary where they are drawn: an ELBO of grey pixels is of another likelihood."""
    seen = []

    def mean_elbo(model, x, *rest):
        seen.append(x)
        return {"elbo": torch.zeros(2, len(x))}

    monkeypatch.setattr(measure, "mean_elbo", mean_elbo)
    for binarization in ("stochastic", "none"):
        data = replace(small_data(), binarization=binarization)
        measure.measure(subject("input_dependent", data=data), ("train_elbo",), 1, "end")
    drawn, grey = seen
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert (drawn.mean() - grey.mean()).abs() < 0.05
    assert torch.equal(grey, data.train / 255)


def test_pytorchs_example_is_made_again(tmp_path, monkeypatch):
    """Where this machine has MNIST."""
    monkeypatch.setattr(download, "_download", lambda *a: pytest.skip("MNIST is not here"))
    text = io.StringIO()
    config = Config(results=tmp_path / "r", cache=tmp_path / "c", device="cpu", jobs=1)
    validation.validate(config, "pytorch_example", Console(file=text, width=200), **FEW)
    assert "published: 1 agrees" in text.getvalue(), text.getvalue()
