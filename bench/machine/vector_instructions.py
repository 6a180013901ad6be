"""AVX-512 for matrix products on AMD's processors, which makes them twice as fast.

torch multiplies with Intel's MKL, and MKL takes its AVX-512 kernels on Intel's processors alone:
elsewhere it multiplies with AVX2, whatever the processor can do. One function tells it whose the
processor is, and a library loaded before torch may answer in its place (de Kok 2020,
https://danieldk.eu/Intel-MKL-on-AMD-Zen). What instructions there are MKL still asks the processor.
On one core of an EPYC of 2024, 110 GFLOP/s became 250.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

SWITCH = "BENCH_AVX512"
"""Environment variable: at 0 MKL is left to choose by itself."""
ANSWER = "int mkl_serv_intel_cpu_true(void) { return 1; }"
LIBRARY = Path(__file__).parent / "__pycache__" / "mkl_with_avx512.so"
PROCESSORS = Path("/proc/cpuinfo")


def choose() -> None:
    """Let MKL take AVX-512 in this process, where it has a processor of AMD's with AVX-512.

    To be called before torch is imported: later MKL has chosen. Where there is no C compiler, or
    nowhere to keep what it made, all stays as it is.
    """
    if "torch" in sys.modules or os.environ.get(SWITCH) == "0" or not _withheld(_processor()):
        return
    with suppress(OSError):
        if not LIBRARY.exists():
            _compile(LIBRARY)
        ctypes.CDLL(str(LIBRARY), mode=ctypes.RTLD_GLOBAL)


def chosen() -> bool:
    """Whether `choose` lets MKL take AVX-512 in this process."""
    with suppress(OSError):
        return str(LIBRARY) in Path("/proc/self/maps").read_text(encoding="utf-8")
    return False


def _processor() -> str:
    """What Linux says of the first processor; "" elsewhere."""
    with suppress(OSError), PROCESSORS.open(encoding="utf-8") as file:
        return file.read(1 << 14).partition("\n\n")[0]
    return ""


def _withheld(processor: str) -> bool:
    """Whether it has AVX-512 that MKL would not use.

    >>> _withheld("vendor_id : AuthenticAMD\\nflags : sse avx2 avx512f")
    True
    >>> _withheld("vendor_id : GenuineIntel\\nflags : sse avx2 avx512f")
    False
    """
    return "AuthenticAMD" in processor and "avx512f" in processor.split()


def _compile(library: Path) -> None:
    """Whole or not there at all, however many processes make it at once."""
    import subprocess

    library.parent.mkdir(exist_ok=True)
    own = library.with_suffix(f".{os.getpid()}")
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(own)]
    done = subprocess.run(command, input=ANSWER, text=True, capture_output=True)
    if done.returncode == 0:
        own.replace(library)
