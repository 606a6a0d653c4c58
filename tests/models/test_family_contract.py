"""What every family of networks must do, tried on a small architecture of each."""

from __future__ import annotations

import functools
import inspect
import subprocess
import sys
from collections.abc import Callable
from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.errors import InputError
from samdeploy.graphs.edit import serialize
from samdeploy.models.family import ModelFamily
from samdeploy.models.graph import Exported
from samdeploy.models.registry import FAMILIES, build_model, complete_options, family_of
from samdeploy.models.torch_family import TorchFamily

SMALL = {
    "sam": "sam-resnet18",
    "timm": "timm:test_resnet",
    "torchvision": "torchvision:resnet18",
    "python": "python:tests.models.own_network:tiny",
}
# A network that is a file cannot be built by its name: see test_onnx_taken.py.
FILES = {"onnx"}
EXTRAS = (
    *("channel_gates", "published_state", "twins", "weights_url", "other_task"),
    *("rescale", "calmer", "stages", "read_network"),
)
CLASSES = ("cat", "dog", "eel")
HEIGHT, WIDTH = 64, 96
# Of the logits' range: another order of sums, in float32, through some twenty layers.
FLOAT32_RELATIVE = 1e-5
# What a family's author writes, beside extras and facts about published weights.
FACTS = {"preprocessing", "labels", "license"}
MOST_METHODS = 5

every_family = pytest.mark.parametrize("prefix", SMALL)


@pytest.fixture(autouse=True)
def own_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMDEPLOY_FACTORY", SMALL["python"].removeprefix("python:"))


@functools.cache
def network(prefix: str) -> tuple[ModelFamily, ModelSpec, nn.Module]:
    """A family, and a network of it in eval mode whose batch norms are not the identity."""
    arch = SMALL[prefix]
    spec = model_spec(arch, complete_options(arch, {}), CLASSES, Preprocessing(HEIGHT, WIDTH))
    return family_of(arch), spec, seeded(arch, 3)


def seeded(arch: str, seed: int, **options: str) -> nn.Module:
    torch.manual_seed(seed)
    model = build_model(arch, len(CLASSES), options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.momentum = 1.0  # the statistics of the one batch below
    with torch.no_grad():
        model.train()(torch.randn(6, 3, HEIGHT, WIDTH))
    return model.eval()


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.ptp(expected))


def test_there_is_a_small_architecture_of_each() -> None:
    assert set(SMALL) | FILES == set(FAMILIES)


@every_family
def test_names_and_options(prefix: str) -> None:
    family, names = family_of(SMALL[prefix]), family_of(SMALL[prefix]).architectures()
    assert family.prefix == prefix
    assert SMALL[prefix] in names and len(set(names)) == len(names)
    assert all(family_of(name) is family for name in names)
    assert all(len(set(values)) == len(values) > 0 for values in family.options.values())
    assert complete_options(SMALL[prefix], {}) == {name: values[0] for name, values in family.options.items()}
    with pytest.raises(InputError, match="unknown architecture"):
        build_model(f"{SMALL[prefix]}-no", 3)
    with pytest.raises(InputError, match="unknown option of"):
        build_model(SMALL[prefix], 3, {"no": 1})


@every_family
def test_the_seed_decides_all_weights(prefix: str) -> None:
    one, same, other = (seeded(SMALL[prefix], seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@every_family
def test_a_simpler_network_is_the_same_function(prefix: str) -> None:
    family, x = family_of(SMALL[prefix]), torch.randn(2, 3, HEIGHT, WIDTH)
    # The size is an option of networks of one size alone.
    options = {name: values[:3] for name, values in family.options.items() if name != "image_side"}
    for values in product(*options.values()):
        model = seeded(SMALL[prefix], 1, **dict(zip(options, values, strict=True)))
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with torch.no_grad():
            found, expected = family.simplify(model)(x).numpy(), model(x).numpy()
        assert distance(found, expected) < FLOAT32_RELATIVE
        assert expected.shape == (2, len(CLASSES))
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@functools.cache
def graph(prefix: str) -> onnx.ModelProto:
    family, spec, model = network(prefix)
    return family.to_onnx(family.simplify(model), spec)


@pytest.mark.slow
@every_family
def test_the_graph_is_sound_and_says_nothing_of_the_machine(prefix: str) -> None:
    _, spec, _ = network(prefix)
    made = graph(prefix)
    onnx.checker.check_model(made, full_check=True)
    # ONNX Runtime 1.22 reads up to opset 22 and IR 10.
    assert [(entry.domain, 17 <= entry.version <= 22) for entry in made.opset_import] == [("", True)]
    assert made.ir_version <= 10
    assert not made.functions and not made.metadata_props and not made.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in made.graph.node)
    assert not any(tensor.metadata_props or tensor.external_data for tensor in made.graph.initializer)
    assert [node.name for node in made.graph.node][:4] == ["pixels", "pixels.nchw", "pixels.scaled", "pixels.shifted"]
    names = [node.name for node in made.graph.node]
    assert all(names) and len(set(names)) == len(names)
    (image,), (logits,) = made.graph.input, made.graph.output
    assert (image.name, image.type.tensor_type.elem_type) == (spec.input.name, onnx.TensorProto.UINT8)
    assert (logits.name, logits.type.tensor_type.elem_type) == (spec.output.name, onnx.TensorProto.FLOAT)
    assert [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim] == list(spec.input.shape)
    assert [axis.dim_param or axis.dim_value for axis in logits.type.tensor_type.shape.dim] == list(spec.output.shape)


@pytest.mark.slow
@every_family
def test_the_graph_gives_pytorchs_logits_at_any_batch(prefix: str) -> None:
    _, spec, model = network(prefix)
    session = onnxruntime.InferenceSession(serialize(graph(prefix)), providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        (found,) = session.run(["logits"], {"image": images(count)})
        with torch.no_grad():
            expected = Exported(model, spec)(torch.from_numpy(images(count))).numpy()
        assert distance(found, expected) < FLOAT32_RELATIVE


@pytest.mark.slow
@every_family
def test_the_same_weights_give_the_same_bytes(prefix: str) -> None:
    family, spec, model = network(prefix)
    assert serialize(family.to_onnx(family.simplify(model), spec)) == serialize(graph(prefix))


@every_family
def test_features_and_head_add_up(prefix: str) -> None:
    family, spec, model = network(prefix)
    cut = family.features_and_head(model, spec.preprocessing)
    assert cut is not None
    x = torch.randn(2, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        features = cut.features(x)
        assert features.ndim == 4
        found, expected = cut.head(features.mean(dim=(2, 3))), model(x)
        assert distance(found.numpy(), expected.numpy()) < FLOAT32_RELATIVE
        # The head is affine.
        double = cut.head(2 * features.mean(dim=(2, 3))) + cut.head(torch.zeros(1, features.shape[1]))
        assert distance(double.numpy(), 2 * expected.numpy()) < FLOAT32_RELATIVE


@every_family
def test_extras_are_there_or_absent(prefix: str) -> None:
    family = family_of(SMALL[prefix])
    assert all(extra is None or callable(extra) for extra in (getattr(family, name) for name in EXTRAS))
    assert family.parts is None or [part.name for part in family.parts][-1] == "head"


@every_family
def test_an_author_writes_five_methods(prefix: str) -> None:
    kind = type(family_of(SMALL[prefix]))
    assert issubclass(kind, TorchFamily)
    own = {name for name, value in vars(kind).items() if callable(inspect.unwrap(value)) and not name.startswith("_")}
    assert len(own - set(EXTRAS) - FACTS) <= MOST_METHODS, sorted(own)


def test_defaults_are_the_network_itself() -> None:
    class Plain(TorchFamily):
        prefix = "plain"

        def architectures(self) -> list[str]:
            return ["plain:linear"]

        def build(self, arch: str, num_classes: int, options: object) -> nn.Module:
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))

    family: ModelFamily = Plain()
    model = family.build("plain:linear", 2, {})
    assert family.simplify(model) is model
    assert family.features_and_head(model, Preprocessing(8, 8)) is None
    assert family.preprocessing("plain:linear", {}) is None
    extras: list[Callable[..., object] | None] = [getattr(family, name) for name in EXTRAS]
    assert extras == [None] * len(EXTRAS)


def test_families_are_imported_without_onnx_and_torchvision() -> None:
    """Training needs no onnx, and importing torchvision's networks takes seconds."""
    code = (
        "import sys\nfrom samdeploy.models.registry import FAMILIES, family_of, option_names\n"
        "option_names()\nfamily_of('sam-resnet18').architectures()\n"
        "print(sorted({'onnx', 'onnxscript', 'torchvision'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
