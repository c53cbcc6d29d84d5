"""Which execution provider a model runs on, and what is said where it cannot."""

import pytest

from rerank_plugins.errors import ConfigError, ModelError
from rerank_plugins.scoring.onnx.session import check_provider, open_graph, providers
from tests.scoring.tiny import folder

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def test_cuda_computes_in_full_fp32_with_the_cpu_behind_it():
    """TF32, its default, would move scores."""
    (first, settings), (last, nothing) = providers("cuda", [CUDA, CPU])
    assert (first, last) == (CUDA, CPU)
    assert settings["use_tf32"] == "0"
    assert nothing == {}


@pytest.mark.parametrize(
    ("available", "names"),
    [
        ([CPU], [CPU]),
        ([CPU, CUDA], [CUDA, CPU]),
        (["TensorrtExecutionProvider", CUDA, CPU], [CUDA, CPU]),
        (["CoreMLExecutionProvider", "DmlExecutionProvider", CPU], None),
    ],
)
def test_auto_takes_what_is_there(available, names):
    """Accelerators first, CPU last, never TensorRT, which builds an engine for every shape."""
    found = [name for name, _ in providers("auto", available)]
    assert found == (names or available)


def test_an_absent_provider_is_named_with_those_that_are_here():
    """The error tells what to install or to use."""
    with pytest.raises(ConfigError, match=r"'cuda' is not in.*found \['cpu'\].*onnxruntime-gpu"):
        providers("cuda", [CPU])


def test_a_provider_that_does_not_start_is_an_error():
    """ONNX Runtime falls back to the CPU in silence where CUDA's libraries do not load."""
    with pytest.raises(ModelError, match=r"'cuda' .* does not start.*cuDNN"):
        check_provider("cuda", CPU)
    check_provider("cuda", CUDA)
    check_provider("auto", CPU)


@pytest.mark.parametrize("provider", ["cpu", "auto"])
def test_a_graph_opens_on_what_is_here(tmp_path, provider):
    """Without accelerators both mean the CPU."""
    graph = open_graph(folder(tmp_path, "bert-sdpa-script") / "model.onnx", provider=provider)
    assert graph.provider == CPU
