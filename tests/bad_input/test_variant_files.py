"""A file that is no sound variant is refused in the contract's words before any training."""

from __future__ import annotations

from concurrent.futures import Future
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vaes
from bench import variant_checks
from bench.commands import contestants
from bench.grid import runner
from vaes import discover

FILE = """
import torch
from torch import nn
from torch.distributions import Cauchy, Independent, Laplace, Normal, StudentT, Uniform
from vaes.base import VAE, diagonal_gaussian

{at_import}

class Mine(VAE):
    rank = {rank}
    choices = {choices}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Linear(self.hidden_dim, self.latent_dim)

    def posterior(self, x):
        {at_posterior}
        features = self.encoder(x)
        location, scale = self.location(features), self.log_scale(features).exp()
        location, scale = {parameters}
        return {family}
"""
SOUND = {
    "at_import": "",
    "rank": "3",
    "choices": "{{}}",
    "at_posterior": "",
    "parameters": "location, scale",
    "family": "diagonal_gaussian(location, scale)",
}
RAISED = [
    "raise SystemExit(0)",
    "raise BaseException('nothing less')",
    "raise GeneratorExit",
    "raise ValueError('a surrogate \\udcff and a \\x1b[2J')",
    "raise ValueError('two\\nlines')",
    "1 / 0",
    "nothing_like_it",
]
BROKEN = {
    "at_import": [*RAISED, "import nothing_like_it", "(", "\0", "del VAE", "VAE = int"],
    "rank": ["'last'", "None", "[]", "float('nan')", "1j", "property(lambda self: 1 / 0)"],
    "choices": [
        "None",
        "3",
        "['scale']",
        "dict(scale=())",
        "dict(scale=('wide',))",
        "dict(scale=(float('nan'),))",
        "dict(nothing_like_it=(1.0, 2.0))",
        "dict(scale=3)",
        "{3: (1.0,)}",
    ],
    "at_posterior": [
        *RAISED,
        "return 3",
        "return None",
        "x = x.unsqueeze(0)",
        "x = x.numpy() + 'a'",
    ],
    "parameters": [
        "location.detach(), scale.detach()",
        "location, scale.detach()",
        "location, -scale",
        "location, 0 * scale",
        "location, scale / 0",
        "location.unsqueeze(0), scale.unsqueeze(0)",
        "location.unsqueeze(-1), scale.unsqueeze(-1)",
        "location[:, :1], scale[:, :1]",
        "location.mean(), scale",
        "location.mT, scale.mT",
        "location if self.training else location / 0, scale",
        "(location, scale) if self.training else (location + float('nan'), scale)",
        "location + torch.randn(()), scale",
        "location - location.mean(0), scale",
    ],
    "family": [
        "Independent(Cauchy(location, scale), 1)",
        "Independent(StudentT(1.0, location, scale), 1)",
        "Independent(StudentT(2.0, location, scale), 1)",
        "Normal(location, scale)",
        "location",
        "(location, scale)",
        "diagonal_gaussian",
        "torch.no_grad()(lambda: diagonal_gaussian(location.detach(), scale.detach()))()",
    ],
}
KINDS = [(part, wrong) for part, some in BROKEN.items() for wrong in some]
numbers = count()


def written(folder, **changes: str):
    """A file of another name each time: of one that changed twice at once, both look the same."""
    path = folder / f"mine_{next(numbers)}.py"
    path.write_text(FILE.format(**{**SOUND, **changes}).replace("{{}}", "{}"), encoding="utf-8")
    return path


def refused(answer, path) -> str:
    code, _ = answer("check", path)
    assert code in (1, 2)
    code, text = answer("run", "--dataset", "digits", "--variants", path)
    assert code == 2
    assert path.stem in text
    return text


def test_the_file_is_sound_where_nothing_is_broken(answer, tmp_path):
    path = written(tmp_path)
    assert answer("check", path)[0] == 0
    assert answer("run", "--dataset", "digits", "--variants", path)[0] == "begun"
    assert answer("tune", "--dataset", "digits", "--variants", path)[0] == "begun"


@pytest.mark.parametrize(("part", "wrong"), KINDS, ids=lambda value: value[:30])
def test_each_kind(answer, tmp_path, part, wrong):
    refused(answer, written(tmp_path, **{part: wrong}))


@given(st.data())
def test_kinds_together(answer, tmp_path, data):
    parts = data.draw(st.lists(st.sampled_from(sorted(BROKEN)), min_size=2, unique=True))
    chosen = {part: data.draw(st.sampled_from(BROKEN[part])) for part in parts}
    refused(answer, written(tmp_path, **chosen))


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes(answer, tmp_path, content):
    path = written(tmp_path)
    path.write_bytes(content)
    refused(answer, path)


LITERALS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner), st.tuples(inner), st.dictionaries(st.text(), inner)),
)


@given(LITERALS, LITERALS)
def test_any_declarations(answer, tmp_path, rank, choices):
    text = "from math import inf, nan\nfrom vaes import Autoencoder\nclass Mine(Autoencoder):\n"
    path = written(tmp_path)
    path.write_text(f"{text}    rank = {rank!a}\n    choices = {choices!a}\n", encoding="utf-8")
    code, text = answer("run", "--dataset", "digits", "--variants", path)
    assert code in (2, "begun")


@pytest.mark.parametrize(
    "name", ["None", "nan", "null", "NA", "all", "my-own", "1st", "a b", "<b>"]
)
def test_a_name_that_tables_cannot_hold(answer, tmp_path, name):
    path = written(tmp_path).rename(tmp_path / f"{name}.py")
    assert "no variant can have this name" in refused(answer, path)


def test_an_import_that_never_ends(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(vaes, "IMPORT_SECONDS", 0.2)
    path = written(tmp_path, at_import="while True: pass")
    assert "its import did not end within 0.2 s" in refused(answer, path)


def test_a_loop_that_catches_every_exception(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(vaes, "IMPORT_SECONDS", 0.2)
    loop = "while True:\n    try:\n        pass\n    except Exception:\n        pass"
    assert "did not end" in refused(answer, written(tmp_path, at_import=loop))


def test_a_posterior_that_never_ends(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(variant_checks, "SECONDS", 0.2)
    text = refused(answer, written(tmp_path, at_posterior="while True: pass"))
    assert "did not end within 0.2 s" in text


def test_a_broken_file_is_tried_once(tmp_path):
    path, told = tmp_path / "mine.py", tmp_path / "told"
    line = f"open({str(told)!r}, 'a').write('.')\nraise SystemExit(0)"
    path.write_text(line, encoding="utf-8")
    for _ in range(3):
        assert "mine.py: SystemExit: 0" in discover(files=[path]).broken["mine"]
    assert told.read_text() == "."


def test_one_that_breaks_its_contract_is_left_out_of_all(answer, tmp_path, monkeypatch):
    """And the run ends with a failure."""
    path = written(tmp_path, parameters="location, -scale")
    own = discover(files=[path])
    monkeypatch.setattr("bench.commands.contestants.discover", lambda files=(): own)
    code, text = answer("run", "--dataset", "digits")
    assert code == "begun"
    assert contestants.some_left_out("all", tuple(own.variants)[:-1])
    assert f"left out: variant '{path.stem}' breaks its contract, has finite densities" in text


def test_a_task_that_exits_is_a_failure_of_its_own():
    """And not the end of the grid, with success."""
    future = Future()
    future.set_exception(SystemExit(0))
    (done,) = runner._done(future, [None])
    assert "the worker process died" in done.reason
