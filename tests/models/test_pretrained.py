"""What a training starts from: torchvision's weights, a run's, and those that must be refused."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from samdeploy.bundle import Bundle
from samdeploy.errors import WeightsError
from samdeploy.models import build_model, load_pretrained, pretrained, read_pretrained, save_weights
from samdeploy.models.sam_resnet.family import PUBLISHED_WEIGHTS
from samdeploy.models.sam_resnet.resnet import SamResNet
from samdeploy.models.torchvision import TorchvisionFamily

CLASSES = ("cat", "dog", "eel")
ORIGINAL = {"gate": "original"}


def test_addresses_are_torchvisions_of_its_first_weights() -> None:
    expected = {
        f"sam-resnet{depth}": torchvision.models.get_weight(f"ResNet{depth}_Weights.IMAGENET1K_V1").url
        for depth in (18, 34, 50, 101, 152)
    }
    assert expected == PUBLISHED_WEIGHTS


@pytest.fixture
def torchvision_file(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    path = tmp_path / "resnet18.pth"
    net = torchvision.models.resnet18()
    nn.init.normal_(net.bn1.running_mean)
    torch.save(net.state_dict(), path)
    return path


def started(path: Path | None, classes: Sequence[str] = CLASSES, arch: str = "sam-resnet18") -> tuple[SamResNet, str]:
    """A network started from `path`, with gates that are not zero, and what was said."""
    net = build_model(arch, len(classes), ORIGINAL)
    return net, load_pretrained(net, read_pretrained(arch, path), classes, ORIGINAL)


def test_torchvisions_weights_reach_the_encoder_and_nothing_else(torchvision_file: Path) -> None:
    net = build_model("sam-resnet18", 3, {"gate": "original"})
    before = {key: value.clone() for key, value in net.state_dict().items()}
    theirs = torch.load(torchvision_file, weights_only=True)
    said = load_pretrained(net, read_pretrained("sam-resnet18", torchvision_file), CLASSES, ORIGINAL)
    after = net.state_dict()
    encoder = {key for key in after if not key.startswith("fc.") and ".sl." not in key}
    assert encoder == {key for key in theirs if not key.startswith("fc.")}
    assert all(torch.equal(after[key], theirs[key]) for key in encoder)
    fresh = set(after) - encoder
    assert len(fresh) == 8 + 2  # a gate in each of eight blocks; weight and bias of the head
    assert all(torch.equal(after[key], before[key]) for key in fresh)
    assert said == (
        f"pretrained weights {torchvision_file}: loaded encoder (95 tensors), stem; starts fresh or not used: "
        "attention: not in the file; head: 1,000 classes in the file, 3 in the data"
    )


def test_a_head_is_kept_where_the_classes_agree(digits_run: Path, digits_bundle: Bundle) -> None:
    digits = [str(number) for number in range(10)]
    for path in (digits_run, digits_run / "weights.safetensors", digits_bundle.root):
        found = read_pretrained("sam-resnet18", path)
        assert (found.classes, found.options) == (tuple(digits), {**ORIGINAL, "stem": "imagenet"})
        net, said = started(path, digits)
        assert torch.equal(net.state_dict()["fc.weight"], found.state["fc.weight"])
        assert said.endswith("loaded encoder (95 tensors), stem, attention, head")
    _, said = started(digits_run, list(reversed(digits)))
    assert said.endswith("head: other classes; the 1. is '0' there, '9' in the data")


def test_a_head_without_names_is_kept_where_the_count_agrees(tmp_path: Path) -> None:
    save_weights(build_model("sam-resnet18", 3, {"gate": "original"}), tmp_path / "w.safetensors")
    assert started(tmp_path / "w.safetensors")[1].endswith("attention, head")
    assert started(tmp_path / "w.safetensors", ["a", "b"])[1].endswith("head: 3 classes in the file, 2 in the data")


def test_attention_of_another_gate_is_skipped(digits_run: Path) -> None:
    net = build_model("sam-resnet18", 3, {"gate": "identity"})
    said = load_pretrained(net, read_pretrained("sam-resnet18", digits_run), CLASSES, {"gate": "identity"})
    assert "attention: trained with the gate original, not identity" in said
    assert not net.state_dict()["layer1.0.sl.fc.weight"].any()


def test_a_stem_is_kept_where_it_is_the_same(tmp_path: Path, torchvision_file: Path) -> None:
    options = {"gate": "original", "stem": "cifar"}
    save_weights(build_model("sam-resnet18", 3, options), tmp_path / "w.safetensors")
    for path, said in (
        (tmp_path / "w.safetensors", "stem, attention, head"),
        (torchvision_file, "stem: its shapes differ"),
    ):
        net = build_model("sam-resnet18", 3, options)
        fresh = net.conv1.weight.clone()
        found = read_pretrained("sam-resnet18", path)
        assert said in load_pretrained(net, found, CLASSES, options)
        assert torch.equal(net.conv1.weight, fresh if path == torchvision_file else found.state["conv1.weight"])


def test_prefixes_wrappers_and_strangers(tmp_path: Path, torchvision_file: Path) -> None:
    state = torch.load(torchvision_file, weights_only=True)
    wrapped = {"epoch": 3, "model": {f"module.backbone.{key}": value for key, value in state.items()}}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    net, _ = started(tmp_path / "wrapped.pth")
    assert torch.equal(net.conv1.weight, state["conv1.weight"])
    torch.save({**state, "aux.weight": torch.zeros(2)}, tmp_path / "more.pth")
    assert started(tmp_path / "more.pth")[1].endswith("1 tensors that sam-resnet18 does not have: aux.weight")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (torchvision.models.resnet18, r"this looks like resnet18. .*\. Give --set model.arch=sam-resnet18, or weights"),
        (lambda: build_model("sam-resnet34", 2, {"gate": "original"}), "this looks like sam-resnet34. "),
        (
            torchvision.models.wide_resnet50_2,
            "this looks like wide_resnet50. .* Weights of resnet50 or of sam",
        ),
        (torchvision.models.resnext50_32x4d, "this looks like resnext50. "),
        (torchvision.models.mobilenet_v3_small, "this looks like a MobileNet, EfficientNet or ConvNeXt. "),
        (torchvision.models.alexnet, "this looks like a VGG or AlexNet. "),
        (lambda: nn.Sequential(nn.Linear(2, 2)), "its first tensors are 0.weight, 0.bias. 260 of 260 tensors of the"),
    ],
)
def test_other_architectures_are_named(tmp_path: Path, make: Callable[[], nn.Module], message: str) -> None:
    torch.save(make().state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=rf"w\.pth does not fit sam-resnet50: {message}") as caught:
        read_pretrained("sam-resnet50", tmp_path / "w.pth")
    assert len(str(caught.value)) < 350 + len(str(tmp_path))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's folder of fetched weights, empty; proxies of the machine do not reach the loopback address."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "torch" / "hub" / "checkpoints"


def url(monkeypatch: pytest.MonkeyPatch, port: int, name: str) -> str:
    found = f"http://127.0.0.1:{port}/{name}"
    monkeypatch.setitem(PUBLISHED_WEIGHTS, "sam-resnet18", found)
    return found


def test_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # bound and not listening: nobody else gets the port, and it refuses
        closed.bind(("127.0.0.1", 0))
        address = url(monkeypatch, closed.getsockname()[1], "resnet18-f37072fd.pth")
        with pytest.raises(WeightsError) as caught:
            read_pretrained("sam-resnet18")
    text = str(caught.value)
    assert "resnet18-f37072fd.pth could not be fetched" in text
    assert f"Download {address} on another machine, and give a file with --set model.pretrained=FILE" in text
    assert not cache.parent.parent.exists()


def test_fetched_once_and_then_taken_from_the_cache(
    cache: Path, torchvision_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = torchvision_file.read_bytes()
    asked: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None: ...

    name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url(monkeypatch, server.server_port, name)
        read_pretrained("sam-resnet18")
        net, _ = started(None)
        assert asked == [f"/{name}"]
        # What arrives must be what the name promises.
        url(monkeypatch, server.server_port, "resnet18-00000000.pth")
        with pytest.raises(WeightsError, match=r"resnet18-00000000\.pth could not be fetched \(invalid hash"):
            read_pretrained("sam-resnet18")
        server.shutdown()
    assert [path.name for path in cache.iterdir()] == [name]
    assert torch.equal(net.conv1.weight, torch.load(torchvision_file, weights_only=True)["conv1.weight"])


def test_a_wrong_file_in_the_cache_is_refused(cache: Path, torchvision_file: Path) -> None:
    cache.mkdir(parents=True)
    target = cache / "resnet18-f37072fd.pth"
    target.write_bytes(torchvision_file.read_bytes())
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match=rf"SHA-256 {digest[:8]}\.\.\. found, f37072fd\.\.\. expected; delete it"):
        read_pretrained("sam-resnet18")


def test_deeper_network_is_another(tmp_path: Path) -> None:
    """It holds every tensor of the shallower one."""
    torch.save(torchvision.models.resnet101().state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"this looks like resnet101\. Give --set model\.arch=sam-resnet101, or"):
        read_pretrained("sam-resnet50", tmp_path / "w.pth")


def torchvision_state(tmp_path: Path, arch: str, classes: int) -> Path:
    torch.manual_seed(6)
    torch.save(torchvision.models.get_model(arch, num_classes=classes).state_dict(), tmp_path / f"{arch}.pth")
    return tmp_path / f"{arch}.pth"


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (3, "loaded encoder (100 tensors), head"),
        (5, "loaded encoder (100 tensors); starts fresh or not used: head: 5 classes in the file, 3 in the data"),
    ],
)
def test_networks_of_any_family_start_from_files_of_their_own(tmp_path: Path, classes: int, said: str) -> None:
    arch, path = "torchvision:resnet18", torchvision_state(tmp_path, "resnet18", classes)
    net = build_model(arch, 3)
    fresh = net.fc.weight.detach().clone()
    assert load_pretrained(net, read_pretrained(arch, path), CLASSES, {}) == f"pretrained weights {path}: {said}"
    state = torch.load(path, weights_only=True)
    assert all(torch.equal(net.state_dict()[key], state[key]) for key in state if not key.startswith("fc."))
    assert torch.equal(net.fc.weight, state["fc.weight"] if classes == 3 else fresh)


def test_a_large_fresh_head_is_scaled_down_and_a_small_one_left(tmp_path: Path, torchvision_file: Path) -> None:
    torch.manual_seed(3)
    arch = "timm:test_efficientnet"
    save_weights(build_model(arch, 1000), tmp_path / "weights.safetensors")
    net = build_model(arch, len(CLASSES))
    fresh = net.get_parameter("classifier.weight").clone()
    load_pretrained(net, read_pretrained(arch, tmp_path / "weights.safetensors"), CLASSES, {})
    bound = fresh.shape[1] ** -0.5
    assert fresh.abs().max() > bound
    assert torch.allclose(net.get_parameter("classifier.weight"), fresh * (bound / fresh.abs().max()))
    assert not net.get_parameter("classifier.bias").any()
    sam = build_model("sam-resnet18", 3, ORIGINAL)
    fresh = sam.fc.weight.clone()
    load_pretrained(sam, read_pretrained("sam-resnet18", torchvision_file), CLASSES, ORIGINAL)
    assert torch.equal(sam.fc.weight, fresh)


def test_a_larger_network_of_any_family_is_another(tmp_path: Path) -> None:
    path = torchvision_state(tmp_path, "resnet34", 3)
    with pytest.raises(WeightsError, match=r"looks like resnet34\. Give --set model\.arch=torchvision:resnet34, or"):
        read_pretrained("torchvision:resnet18", path)
    path = torchvision_state(tmp_path, "regnet_y_400mf", 3)
    with pytest.raises(WeightsError, match=r"Weights of regnet_x_400mf or of torchvision:regnet_x_400mf expected"):
        read_pretrained("torchvision:regnet_x_400mf", path)


def test_asking_for_shapes_draws_no_random_numbers() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    assert pretrained.tensor_shapes("torchvision:regnet_y_400mf", 2)["fc.bias"] == (2,)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_family_without_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchvisionFamily, "weights_url", None)
    with pytest.raises(WeightsError) as caught:
        read_pretrained("torchvision:resnet18")
    assert str(caught.value) == (
        "there are no published weights of torchvision:resnet18; give a file with --set model.pretrained=FILE, or "
        "start from random weights: --set model.pretrained=false"
    )


def test_weights_of_images_of_another_size_need_a_network_for_it(tmp_path: Path) -> None:
    arch, options = "timm:test_vit", {"attention": "", "image_side": 64}
    trained = build_model(arch, 3, options)
    save_weights(trained, tmp_path / "w.safetensors")
    found, net = read_pretrained(arch, tmp_path / "w.safetensors"), build_model(arch, 3, options)
    load_pretrained(net, found, CLASSES, options)
    assert torch.equal(net.pos_embed, trained.pos_embed)
    with pytest.raises(
        WeightsError, match=r"is of images of another size: pos_embed is \[1, 17, 64\], \[1, 101, 64\] ex"
    ):
        load_pretrained(build_model(arch, 3), found, CLASSES, {})
