"""A function of tensors as one native function: no autograd and no Python between two kernels.

torch traces it once, through the very code that also runs eagerly, and its inductor compiles what
it saw, element-wise work in few passes. Compiling takes time and a C++ compiler: it is for long
work on a CPU.

The only file that names the private interfaces of torch's compiler: they are those of torch 2.13.
Where another version lacks one, nothing is compiled, and the reason is told.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor

from bench.errors import one_line

MOST_CHARACTERS = 200
"""Of a reason: a compiler's is its whole command."""


class NotCompiled(Exception):
    """Why a function stays as it is, in one line."""


def native(function: Callable, arguments: list[Tensor]) -> Callable:
    """`function(*arguments)`, which returns a list of tensors, for contiguous ones of these shapes.

    Raises NotCompiled where there is no compiler or the function cannot be compiled.
    """
    if compiler() is None:
        raise NotCompiled("no C++ compiler with Python's headers")
    copies = [a.detach().clone().contiguous() for a in arguments]  # tracing runs the function
    try:
        from torch._export.utils import _compiling_state_context
        from torch.fx.experimental.proxy_tensor import make_fx

        with _compiling_state_context():
            graph = make_fx(function, decomposition_table=FORMULAS)(*copies)
        return _compile(graph, copies)
    except Exception as error:  # a compiler can fail in many ways, and is no reason not to work
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise NotCompiled(shorten(reason, MOST_CHARACTERS)) from error


def compiler() -> str | None:
    """The path of the C++ compiler that inductor would call, or None.

    None too without Python's headers, which the compiled code includes.
    """
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return None
    usual = "clang++" if sys.platform == "darwin" else "g++"
    return shutil.which(os.environ.get("CXX", usual))


def _tanh(x: Tensor) -> Tensor:
    """In one exponential, which compiled code evaluates two to three times faster than its own;
    correct to float32's rounding of values of order one."""
    return 2 / (1 + torch.exp(-2 * x)) - 1


def _addmm(bias: Tensor, a: Tensor, b: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    """The product, then its bias, which whatever reads the product next adds in passing.

    torch's own writes the bias to every line first. One dimension more, or inductor would find the
    sum and make it that again.
    """
    if beta != 1 or alpha != 1:
        return NotImplemented
    return ((a @ b).unsqueeze(0) + bias).squeeze(0)


FORMULAS = {torch.ops.aten.tanh.default: _tanh, torch.ops.aten.addmm.default: _addmm}
"""What compiled code evaluates faster than torch's own operation."""


def _compile(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Callable:
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    # inductor keeps what it compiled on disk, but only for a graph that has a shape environment
    context = TracingContext(FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True))
    with torch.no_grad(), tracing(context), config.patch(SETTINGS), catch_warnings():
        simplefilter("ignore", FutureWarning)  # torch's, about itself
        return compile_fx(graph, examples)


SETTINGS = {
    "compile_threads": 1,  # a worker has one core: no pool of compilers
    "cpp_wrapper": True,  # one file to compile, and no Python between two kernels
    "cpp_cache_precompile_headers": False,  # takes longer than the one file
    # or each process tries the processor's instructions, for which it imports torch once more; a
    # compiler of C++20, which torch's headers need, knows them
    "cpp.vec_isa_ok": True,
}
