"""MKL told that it may take AVX-512: where, and that torch then multiplies with it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.machine import vector_instructions
from bench.machine.places import ROOT

AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: sse avx2 avx512f avx512bw"
KERNELS = """
import ctypes, pathlib
import bench, torch
torch.rand(64, 64) @ torch.rand(64, 64)
library = pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
print(ctypes.CDLL(str(library)).mkl_serv_cpu_detect())
"""


def withheld_here() -> bool:
    return vector_instructions._withheld(vector_instructions._processor())


@pytest.mark.parametrize(
    ("processor", "withheld"),
    [
        (AMD, True),
        (AMD.replace("AuthenticAMD", "GenuineIntel"), False),
        (AMD.replace(" avx512f avx512bw", ""), False),
        ("", False),
    ],
)
def test_only_amds_processors_with_avx512_are_denied_it(processor, withheld):
    assert vector_instructions._withheld(processor) == withheld


def kernels(**environment: str) -> int:
    """The number of the kernels that MKL takes; 0 are those of any other maker's processor."""
    command = [sys.executable, "-c", KERNELS]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_torch_multiplies_with_avx512_where_it_was_withheld():
    if not (withheld_here() and vector_instructions.LIBRARY.exists()):
        pytest.skip("no processor of AMD's with AVX-512, or no C compiler")
    assert kernels(BENCH_AVX512="0") == 0
    assert kernels() > 0


def test_without_a_compiler_all_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_instructions, "LIBRARY", tmp_path / "none" / "library.so")
    monkeypatch.setattr(vector_instructions, "_withheld", lambda processor: True)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("PATH", str(tmp_path))
    vector_instructions.choose()
    assert not vector_instructions.LIBRARY.exists()
