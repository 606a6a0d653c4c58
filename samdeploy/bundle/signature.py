"""Who vouches for a bundle: a signature over every file of its folder, in the format of OpenSSF's model-signing 1.0.

The file is a Sigstore bundle (JSON) around a DSSE envelope around an in-toto statement, which lists each file with its
SHA-256: https://github.com/sigstore/model-transparency and https://github.com/secure-systems-lab/dsse.  It is written
by the package model-signing.  To read it takes an elliptic-curve key and `cryptography` alone: model-signing loads the
network clients of Sigstore, which costs longer than opening a bundle, and a reader has no use for them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import BundleError, InputError, PackageMissing, first_line
from samdeploy.files import contained_file, read_json, write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

# Beside the manifest, which does not list it; the name that model-signing gives it, too.
SIGNATURE_FILE = "model.sig"
_MOST_BYTES = 4 << 20
_CURE = "get the bundle again from somebody you trust, or, if it is yours, sign it again"
_LONGEST_KEY = 1 << 16  # bytes, of PEM with whatever stands around it
_MAKE_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
# Bits of a curve's field -> its hash, as Sigstore's protocol pairs them.
_HASHES = {256: "SHA256", 384: "SHA384", 521: "SHA512"}


def sign_folder(root: Path, private_key: Path) -> Path:
    """Sign every file in a bundle's folder, those that the manifest does not name as well.

    Args:
        private_key: PEM, on the curve P-256, P-384 or P-521, without a password.

    Returns:
        `SIGNATURE_FILE` in the folder; one that was there is replaced.

    Raises:
        InputError: the key cannot be used or lies in the folder, or something in the folder is no plain file or would
            be refused by whom trusts the key; then there is no signature.
    """
    from model_signing import hashing, signing

    if private_key.resolve().is_relative_to(root.resolve()):
        raise InputError(f"key {private_key}: lies in the bundle, and would be handed on with it; move it elsewhere")
    if (root / SIGNATURE_FILE).is_dir():
        raise InputError(f"bundle {root}: {SIGNATURE_FILE} is a folder, where the signature is written; remove it")
    if not private_key.is_file():
        new = private_key / "private.pem" if private_key.is_dir() else private_key
        raise InputError(f"key {private_key}: {_no_file(private_key)}; make one: {_MAKE_KEY} {shlex.quote(str(new))}")
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except (ValueError, TypeError, AttributeError):  # no PEM; a password; no elliptic curve
        if b"PUBLIC KEY" in private_key.read_bytes():
            raise InputError(f"key {private_key}: is a public key; give the private key that belongs to it") from None
        raise InputError(
            f"key {private_key}: an EC private key (PEM, P-256, P-384 or P-521, no password) expected; make a new one: "
            f"{_MAKE_KEY} new-private.pem"
        ) from None
    if found := next((path for path in root.rglob("*") if _is_private_key(path)), None):
        raise InputError(f"bundle {root}: a private key would be handed on with it; remove {found}")
    signer.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / SIGNATURE_FILE
        try:
            signer.sign(root, made)
        except ValueError as error:
            raise InputError(f"bundle {root}: cannot be signed ({first_line(error)})") from None
        write_atomic(root / SIGNATURE_FILE, made.read_bytes())
        _refuse_what_readers_refuse(root, private_key, Path(folder) / "public.pem")
    return root / SIGNATURE_FILE


def _is_private_key(path: Path) -> bool:
    return path.is_file() and path.stat().st_size < _LONGEST_KEY and b"PRIVATE KEY-----" in path.read_bytes()


def sign_again(root: Path) -> str:
    """What to do after a file of a signed bundle was written."""
    return f"sign the bundle again: samdeploy sign {shlex.quote(str(root))} --key FILE"


def _no_file(path: Path) -> str:
    return "a folder found, a file expected" if path.is_dir() else "no such file"


def _refuse_what_readers_refuse(root: Path, private_key: Path, public_key: Path) -> None:
    """model-signing signs files with two links and names with a backslash, too; readers open neither."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    public = load_pem_private_key(private_key.read_bytes(), None).public_key()
    public_key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    try:
        signed_files(root, public_key)
    except BundleError as error:
        (root / SIGNATURE_FILE).unlink()
        raise InputError(f"cannot be signed, everyone would refuse it: {error}") from None


def signed_files(root: Path, public_key: Path) -> Mapping[str, str]:
    """Path -> SHA-256 of the files of a bundle's folder, all of them as they were signed.

    Args:
        public_key: PEM, of the key that is trusted.

    Raises:
        BundleError: there is no signature, it is of another key, or a file was changed, added or removed since.
        InputError: no public key of an elliptic curve.
        PackageMissing: `cryptography` is not installed.
    """
    where = f"bundle {root}"
    key = _public_key(public_key)
    if not (root / SIGNATURE_FILE).exists():
        raise BundleError(f"{where}: not signed (no {SIGNATURE_FILE}), so {public_key} proves nothing; {_CURE}")
    path = contained_file(root, SIGNATURE_FILE, where)
    values = read_json(path, where, max_bytes=_MOST_BYTES)
    try:
        envelope = values["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(found["sig"], validate=True) for found in envelope["signatures"]]
        kind = str(envelope["payloadType"])
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise BundleError(f"{where}: {SIGNATURE_FILE} is no signature of model-signing 1.0; {_CURE}") from None
    if len(signatures) != 1 or not _is_signed(key, signatures[0], kind, payload):
        raise BundleError(f"{where}: signed by another key than {public_key}; {_CURE}")
    try:
        signed, ignored = _statement(kind, payload)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{where}: {SIGNATURE_FILE} signs something else than files ({error}); {_CURE}") from None
    _compare(root, signed, ignored)
    return signed


def _public_key(path: Path) -> EllipticCurvePublicKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ModuleNotFoundError:
        raise PackageMissing("signatures need the package cryptography: pip install 'samdeploy[sign]'") from None
    if not path.is_file():
        raise InputError(f"key {path}: {_no_file(path)}; a public key in PEM expected")
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(
            f"key {path}: not a public key in PEM; to make it from the private key: openssl ec -in PRIVATE -pubout"
        ) from None
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.key_size not in _HASHES:
        raise InputError(f"key {path}: {type(key).__name__} found, one on the curve P-256, P-384 or P-521 expected")
    return key


def _is_signed(key: EllipticCurvePublicKey, signature: bytes, kind: str, payload: bytes) -> bool:
    """DSSE: what is signed is the pre-authentication encoding of the payload and its type."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    encoded = b"DSSEv1 %d %b %d %b" % (len(kind.encode()), kind.encode(), len(payload), payload)
    try:
        key.verify(signature, encoded, ECDSA(getattr(hashes, _HASHES[key.curve.key_size])()))
    except InvalidSignature:
        return False
    return True


def _statement(kind: str, payload: bytes) -> tuple[dict[str, str], Sequence[PurePosixPath]]:
    """Path -> SHA-256, and the paths that were left out, of a payload whose signature is right.

    Raises:
        KeyError, TypeError, ValueError: it is no list of whole files.
    """
    statement: Any = json.loads(payload)
    how = statement["predicate"]["serialization"]
    for name, found, expected in (
        ("payload", kind, _PAYLOAD),
        ("statement", statement["_type"], _STATEMENT),
        ("predicate", statement["predicateType"], _PREDICATE),
        ("method", how["method"], "files"),
        ("hash", how["hash_type"], "sha256"),
    ):
        if found != expected:
            raise ValueError(f"{name} {found!r} found, {expected!r} expected")
    resources = statement["predicate"]["resources"]
    signed = {str(found["name"]): str(found["digest"]) for found in resources if found["algorithm"] == "sha256"}
    if len(signed) != len(resources):
        raise ValueError("a file stands twice, or has another hash than SHA-256")
    return signed, [PurePosixPath(path) for path in how.get("ignore_paths", ())]


def _compare(root: Path, signed: Mapping[str, str], ignored: Sequence[PurePosixPath]) -> None:
    """
    Raises:
        BundleError: the files below `root` are not those of `signed`.
    """
    where = f"bundle {root}"
    found = {
        path
        for path in _files(root)
        if path != SIGNATURE_FILE and not any(PurePosixPath(path).is_relative_to(left_out) for left_out in ignored)
    }
    for path in sorted(signed.keys() - found):
        raise BundleError(f"{where}: {path!r} is missing, which was signed; {_CURE}")
    for path in sorted(found - signed.keys()):
        raise BundleError(f"{where}: {path!r} was added after the bundle was signed; remove it, or {_CURE}")
    for path, expected in signed.items():
        with contained_file(root, path, where).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != expected:
            raise BundleError(f"{where}: {path!r} was changed after the bundle was signed; {_CURE}")
    if MANIFEST not in signed:
        raise BundleError(f"{where}: its signature does not cover {MANIFEST}; {_CURE}")


def _files(root: Path) -> Iterator[str]:
    """Everything below `root` that is no folder, with forward slashes; a link to a folder is no folder."""
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        yield from (Path(folder, name).relative_to(root).as_posix() for name in (*files, *links))
