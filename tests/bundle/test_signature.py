"""A signed bundle is opened by whom trusts its key, and by nobody else once a file was changed, added or removed.

The package model-signing, which writes the signatures, verifies them here as well: both must refuse the same folders.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("OpenSSL", reason="pip install 'samdeploy[sign]'")
pytest.importorskip("model_signing", reason="pip install 'samdeploy[sign]'")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from model_signing import hashing, signing, verifying

from samdeploy.bundle import open_bundle, signature
from samdeploy.bundle.names import MANIFEST
from samdeploy.bundle.signature import SIGNATURE_FILE, sign_folder
from samdeploy.errors import BundleError, InputError

PEM = serialization.Encoding.PEM


def write_key(folder: Path, name: str, curve: object = None) -> tuple[Path, Path]:
    """Files of a new private key and of its public one."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )  # fmt: skip
    public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_key(tmp_path, "mine")


@pytest.fixture
def signed(root: Path, keys: tuple[Path, Path]) -> Path:
    """The folder of a signed bundle, with a file in it that the manifest does not name."""
    (root / "README.md").write_text("a card")
    sign_folder(root, keys[0])
    return root


def model_signing_takes(root: Path, public: Path) -> bool:
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public).verify(root, root / SIGNATURE_FILE)
    except Exception:
        return False
    return True


def test_a_signed_bundle_opens(signed: Path, keys: tuple[Path, Path]) -> None:
    assert open_bundle(signed, trust=keys[1]) == open_bundle(signed)
    assert model_signing_takes(signed, keys[1])


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_every_curve_of_model_signing(root: Path, tmp_path: Path, curve: Callable[[], object]) -> None:
    private, public = write_key(tmp_path, "other", curve())
    sign_folder(root, private)
    open_bundle(root, trust=public)
    assert model_signing_takes(root, public)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def change_payload(root: Path) -> None:
    """Let the signature list the files as they are now."""
    values = json.loads((root / SIGNATURE_FILE).read_text())
    payload = base64.b64decode(values["dsseEnvelope"]["payload"])
    other = payload.replace(b"model_signing", b"model_singing")
    assert other != payload
    values["dsseEnvelope"]["payload"] = base64.b64encode(other).decode()
    (root / SIGNATURE_FILE).write_text(json.dumps(values))


TAMPERING = {
    "a graph changed": (lambda root: flip(root / "graphs/fp32.onnx"), "'graphs/fp32.onnx' was changed"),
    "an engine changed": (lambda root: flip(root / "engines/a.plan"), "'engines/a.plan' was changed"),
    "manifest changed": (lambda root: flip(root / MANIFEST), "'manifest.json' was changed"),
    "unnamed file changed": (lambda root: (root / "README.md").write_text("x"), "'README.md' was changed"),
    "added": (lambda root: (root / "new.txt").write_text(""), "'new.txt' was added"),
    "added below": (lambda root: (root / "golden/new.npy").write_text(""), "'golden/new.npy' was added"),
    "hidden one added": (lambda root: (root / ".new").write_text(""), "'.new' was added"),
    "link added": (lambda root: (root / "link").symlink_to("/"), "'link' was added"),
    "unnamed file removed": (lambda root: (root / "README.md").unlink(), "'README.md' is missing, which was signed"),
    "a graph removed": (lambda root: (root / "graphs/fp32.onnx").unlink(), "onnx' is missing, which was signed"),
    "signature removed": (lambda root: (root / SIGNATURE_FILE).unlink(), "not signed"),
    "signature emptied": (lambda root: (root / SIGNATURE_FILE).write_text(""), "is empty"),
    "no signature": (lambda root: (root / SIGNATURE_FILE).write_text("{}"), "is no signature of model-signing"),
    "signed text changed": (change_payload, "signed by another key"),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_is_refused(signed: Path, keys: tuple[Path, Path], name: str) -> None:
    tamper, said = TAMPERING[name]
    tamper(signed)
    with pytest.raises(BundleError, match=said):
        open_bundle(signed, trust=keys[1])
    assert not model_signing_takes(signed, keys[1])


@pytest.mark.parametrize("name", ["unnamed file changed", "added", "signature removed", "signature emptied"])
def test_without_trust_nothing_changes(signed: Path, name: str) -> None:
    before = open_bundle(signed)
    TAMPERING[name][0](signed)
    assert open_bundle(signed) == before


def test_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    _, public = write_key(tmp_path, "other")
    with pytest.raises(BundleError, match=r"signed by another key .*other.pub"):
        open_bundle(signed, trust=public)


def test_the_signature_of_another_bundle_is_refused(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other" / "bundle"
    shutil.copytree(signed, other)
    flip(other / "weights.safetensors")
    sign_folder(other, keys[0])
    shutil.copy(other / SIGNATURE_FILE, signed)
    with pytest.raises(BundleError, match=r"'weights.safetensors' was changed"):
        open_bundle(signed, trust=keys[1])


def test_a_manifest_that_comes_after_the_check_is_refused(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    check = signature._compare

    def check_and_exchange(root: Path, *arguments: object) -> None:
        check(root, *arguments)  # type: ignore[arg-type]
        (root / MANIFEST).write_bytes((root / MANIFEST).read_bytes() + b"\n")

    monkeypatch.setattr(signature, "_compare", check_and_exchange)
    with pytest.raises(BundleError, match="was changed while it was read"):
        open_bundle(signed, trust=keys[1])


def test_what_model_signing_signed_by_itself_is_taken(root: Path, keys: tuple[Path, Path]) -> None:
    (root / ".git").mkdir()
    (root / ".git/HEAD").write_text("as model-signing signs by default, without the files of git")
    config = hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE])
    signer = signing.Config().use_elliptic_key_signer(private_key=keys[0]).set_hashing_config(config)
    signer.sign(root, root / SIGNATURE_FILE)
    (root / ".git/HEAD").write_text("changed")
    open_bundle(root, trust=keys[1])


def test_a_file_that_the_signer_left_out_is_not_read(root: Path, keys: tuple[Path, Path]) -> None:
    config = hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE, "engines"])
    signer = signing.Config().use_elliptic_key_signer(private_key=keys[0]).set_hashing_config(config)
    signer.sign(root, root / SIGNATURE_FILE)
    with pytest.raises(BundleError, match=r"'engines/a.plan' is not the file that was signed"):
        open_bundle(root, trust=keys[1])


def test_only_a_public_key_of_an_elliptic_curve_is_taken(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "rsa.pub"
    made = rsa.generate_private_key(65537, 2048).public_key()
    other.write_bytes(made.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    for path, said in (
        (keys[0], "not a public key in PEM; to make it from the private key: openssl ec -in PRIVATE"),
        (signed / "README.md", "not a public key in PEM"),
        (other, "RSAPublicKey found, one on the curve"),
        (tmp_path / "none.pub", "no such file"),
        (tmp_path, "a folder found, a file expected; a public key"),
    ):
        with pytest.raises(InputError, match=said):
            open_bundle(signed, trust=path)


def test_only_a_private_key_of_an_elliptic_curve_signs(root: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    key = ec.generate_private_key(ec.SECP256R1())
    secret = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, secret))
    wrong = tmp_path / "rsa.key"
    plain = serialization.NoEncryption()
    wrong.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    for path, text in (
        (keys[1], "is a public key; give the private key that belongs to it"),
        (locked, "an EC private key .* expected; make a new one"),
        (wrong, "an EC private key .* expected; make a new one"),
        (tmp_path / "none.key", "no such file; make one"),
    ):
        with pytest.raises(InputError, match=f"key {path}: {text}"):
            sign_folder(root, path)
    assert not (root / SIGNATURE_FILE).exists()


def test_a_key_in_the_bundle_does_not_sign(root: Path, tmp_path: Path) -> None:
    private, _ = write_key(root / "golden", "mine")
    (tmp_path / "link").symlink_to(root)
    for path in (private, tmp_path / "link" / "golden" / private.name, root, root / "none.key"):
        with pytest.raises(InputError, match=f"key {path}: lies in the bundle, .*; move it elsewhere"):
            sign_folder(root, path)
    copy = shutil.copy(private, tmp_path)
    private.write_bytes(private.read_bytes() + b"\n")  # whatever its form, it is a private key
    with pytest.raises(InputError, match=f"bundle {root}: a private key would be handed on with it; remove {private}"):
        sign_folder(root, Path(copy))
    assert not (root / SIGNATURE_FILE).exists()


def test_a_folder_in_the_signature_s_place_is_named(root: Path, keys: tuple[Path, Path]) -> None:
    (root / SIGNATURE_FILE).mkdir()
    with pytest.raises(InputError, match=rf"bundle {root}: model.sig is a folder, .*; remove it"):
        sign_folder(root, keys[0])


@pytest.mark.parametrize(("name", "said"), [("linked", "2 hard links"), ("a\\b", "is not plain")])
def test_what_readers_refuse_is_not_signed(root: Path, keys: tuple[Path, Path], name: str, said: str) -> None:
    (root / "plain").write_text("")
    (root / name).hardlink_to(root / "plain") if name == "linked" else (root / name).write_text("")
    with pytest.raises(InputError, match=said):
        sign_folder(root, keys[0])
    assert not (root / SIGNATURE_FILE).exists()


def test_signing_anew_replaces(signed: Path, tmp_path: Path) -> None:
    (signed / "eval.json").write_text("{}")
    private, public = write_key(tmp_path, "new")
    sign_folder(signed, private)
    open_bundle(signed, trust=public)


LOADED = """
import sys
from samdeploy import open_bundle
open_bundle(sys.argv[1], trust=sys.argv[2] or None)
print(*sorted({"cryptography", "model_signing", "sigstore", "numpy"} & sys.modules.keys()))
"""


@pytest.mark.parametrize(("trusts", "loaded"), [(False, ""), (True, "cryptography")])
def test_readers_load_little(
    signed: Path, keys: tuple[Path, Path], environment: dict[str, str], trusts: bool, loaded: str
) -> None:
    line = [sys.executable, "-c", LOADED, str(signed), str(keys[1]) if trusts else ""]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == (loaded, "")
