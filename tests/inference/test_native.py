"""What is needed to compile a function."""

from __future__ import annotations

import pytest
import torch

from bench.inference import native


def test_without_pythons_headers_there_is_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr(native.sysconfig, "get_path", lambda name: str(tmp_path))
    assert native.compiler() is None


@pytest.mark.skipif(native.compiler() is None, reason="there is no C++ compiler")
def test_a_native_function_is_the_traced_one_at_other_arguments(monkeypatch):
    """The compiler itself is slow and not ours: what it would get is run as it is."""
    monkeypatch.setattr(native, "_compile", lambda graph, examples: graph)
    function = native.native(lambda a, b: [torch.tanh(a) * b], [torch.zeros(3), torch.ones(3)])
    a, b = torch.linspace(-3, 3, 3), torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(function(a, b)[0], torch.tanh(a) * b)


@pytest.mark.skipif(native.compiler() is None, reason="there is no C++ compiler")
def test_a_bias_is_added_after_its_product(monkeypatch):
    graphs = []
    monkeypatch.setattr(native, "_compile", lambda graph, examples: graphs.append(graph) or graph)
    layer = torch.nn.Linear(3, 2)
    bias, weight, x = layer.bias.detach(), layer.weight.detach(), torch.randn(4, 3)

    def affine(*given):
        return [torch.addmm(given[0], given[2], given[1].t())]

    (found,) = native.native(affine, [bias, weight, x])(bias, weight, x)
    torch.testing.assert_close(found, layer(x).detach())
    assert not any("addmm" in str(node.target) for node in graphs[0].graph.nodes)


def test_what_cannot_be_traced_is_said():
    def waiting(a):
        return [a] if a.sum().item() > 0 else [-a]

    with pytest.raises(native.NotCompiled):
        native.native(waiting, [torch.ones(2)])
