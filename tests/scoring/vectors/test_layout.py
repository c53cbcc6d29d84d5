"""What a folder says of an encoder, and what is refused."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from rerank_plugins.errors import ModelError
from rerank_plugins.scoring.models.hub import Hub
from rerank_plugins.scoring.onnx.options import OnnxOptions
from rerank_plugins.scoring.vectors import weights
from rerank_plugins.scoring.vectors.encoder import Encoder
from rerank_plugins.scoring.vectors.layout import find_encoder, read_layout
from tests import tiny
from tests.scoring.vectors import encoders

OPTIONS = OnnxOptions(graph_cache=False)
TEXTS = tiny.passages(5)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """Build an encoder with two Dense modules."""
    kind = next(one for one in encoders.KINDS if one.name == "dense")
    folder = tmp_path_factory.mktemp("dense") / "model"
    encoders.build(kind, folder)
    return folder


@pytest.fixture
def copy(dense, tmp_path):
    """Copy it, to be changed."""
    return shutil.copytree(dense, tmp_path / "copy")


def change(path, **facts):
    """Change some facts of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_a_file_alone_and_its_folder_are_the_same_encoder(dense):
    """The folder's layout holds for the .onnx file in it too."""
    whole = Encoder(find_encoder(dense), OPTIONS)
    alone = Encoder(find_encoder(dense / "onnx" / "model.onnx"), OPTIONS)
    assert whole.identity == alone.identity
    np.testing.assert_array_equal(whole.encode(TEXTS), alone.encode(TEXTS))


def test_from_the_hub_come_the_modules_and_no_torch_model(dense, tmp_path, monkeypatch):
    """A hub id is found in the local cache, its modules with it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tiny.cache(tmp_path, "org/dense", dense)
    files = find_encoder("org/dense", hub=Hub(local_files_only=True, cache_dir=tmp_path))
    assert (files.name, files.revision) == ("org/dense", "c" * 40)
    assert len(read_layout(files).steps) == 3


def test_a_graph_that_pools_in_itself_is_taken_as_it_is(dense, tmp_path):
    """With one vector for each text as output, nothing but its length is changed."""
    folder = encoders.pooled_copy(dense, tmp_path / "pooled")
    encoder = Encoder(find_encoder(folder), OPTIONS)
    assert encoder.dimensions == 24
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(TEXTS), axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("option", ["weights", "prompt", "tokens", "pooling"])
def test_all_that_decides_a_vector_decides_the_identity(dense, copy, option):
    """Weights outside the graph, the passage's prompt, the limit and the pooling count."""
    before = Encoder(find_encoder(dense), OPTIONS).identity
    prompt, options = None, OPTIONS
    if option == "weights":
        layer = torch.nn.Linear(24, 27)
        state = {f"linear.{name}": value for name, value in layer.state_dict().items()}
        (copy / "2_Dense" / "model.safetensors").unlink()
        torch.save(state, copy / "2_Dense" / "pytorch_model.bin")
    elif option == "prompt":
        prompt = "passage: "
    elif option == "tokens":
        options = OnnxOptions(graph_cache=False, max_tokens=32)
    else:
        change(copy / "1_Pooling" / "config.json", pooling_mode="mean")
    assert Encoder(find_encoder(copy), options, passage_prompt=prompt).identity != before


def test_a_query_prompt_leaves_remembered_passages_valid(dense):
    """It decides no passage's vector."""
    encoder = Encoder(find_encoder(dense), OPTIONS, query_prompt="find: ")
    assert encoder.identity == Encoder(find_encoder(dense), OPTIONS).identity


def test_the_default_prompt_precedes_both(copy):
    """Where the configuration names no prompt for queries or passages."""
    path = copy / "config_sentence_transformers.json"
    change(path, prompts={"both": "text: "}, default_prompt_name="both")
    found = read_layout(find_encoder(copy))
    assert (found.query_prompt, found.passage_prompt) == ("text: ", "text: ")


@pytest.mark.parametrize(
    ("where", "facts", "message"),
    [
        ("config_sentence_transformers.json", {"similarity_fn_name": "manhattan"}, "manhattan"),
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "pools by attention"),
        ("2_Dense/config.json", {"activation_function": "my.Own"}, "Own"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "something else"),
        ("2_Dense/config.json", {"use_residual": True}, "something else"),
    ],
)
def test_what_is_not_known_is_refused(copy, where, facts, message):
    """A vector that would be wrong is an error at load."""
    change(copy / where, **facts)
    with pytest.raises(ModelError, match=message):
        read_layout(find_encoder(copy))


def test_unknown_modules_and_broken_lists_are_refused(copy):
    """An LSTM behind the rows, and a list that is none."""
    listed = encoders.modules(copy)
    listed[1]["type"] = "sentence_transformers.models.LSTM"
    (copy / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(ModelError, match="module LSTM"):
        read_layout(find_encoder(copy))
    (copy / "modules.json").write_text("{")
    with pytest.raises(ModelError, match="no list of modules"):
        read_layout(find_encoder(copy))


def test_a_cross_encoder_is_no_encoder(tiny_model):
    """A graph without rows whose output has one column gives vectors of one number."""
    assert Encoder(find_encoder(tiny_model), OPTIONS).dimensions == 1


def test_weights_of_every_type_are_read(tmp_path):
    """Torch archives of float32, float16, bfloat16 and float64, views and transposes included."""
    values = torch.arange(12.0).reshape(3, 4)
    state = {
        "linear.weight": values.T,
        "half": values.half(),
        "brain": values.bfloat16()[1:],
        "double": values.double(),
    }
    torch.save(state, tmp_path / "pytorch_model.bin")
    found, _ = weights.read(tmp_path)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.float().numpy())


def test_a_pickle_that_names_anything_else_is_refused(tmp_path):
    """Weights are numbers: nothing in the file is run."""

    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"linear.weight": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"names \w+\.print"):
        weights.read(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps([1]))
    with pytest.raises(ModelError, match="cannot be read"):
        weights.read(tmp_path)


def test_damaged_or_missing_weights_are_refused(copy, tmp_path):
    """Half a file is an error; so is none."""
    path = copy / "2_Dense" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ModelError, match="cannot be read"):
        read_layout(find_encoder(copy))
    with pytest.raises(ModelError, match="holds no weights"):
        weights.read(tmp_path)
