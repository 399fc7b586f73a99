"""Signatures: who made a model. A digest says that a file is whole, a signature that a key's owner meant it so.

The format is that of OpenSSF Model Signing 1.0 with a plain key: a Sigstore bundle (JSON) around an in-toto statement
that lists the SHA-256 of every file of a model, signed with ECDSA. ``model_signing verify key`` reads what
``unet-export sign`` writes, and the reverse. Nothing is asked of a network, and no time is read.

https://github.com/ossf/model-signing-spec, https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import MissingDependencyError, ModelFileError
from unet_runtime.core.files import read_regular
from unet_runtime.core.install import missing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

FOLDER_SIGNATURE = "model.sig"
"""Signature of a folder, in it."""

FILE_SUFFIX = ".sig"
"""Added to a file's name: its own signature, beside it."""

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"

SINGLE = "."
"""Name of the file in a statement about one file."""

CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
"""Elliptic curve -> hash that is signed."""

_KEY_BYTES = 2**20
_SIGNATURE_BYTES = 2**26
_LEVELS = 3
"""Folders in which a folder's signature is looked for: the model's own, and two above (``NAME/1/model.onnx``)."""
_PUBLIC_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
_SHOWN = 12  # digits of a digest in a message
_RULE_FIELDS = {"models", "keys", "unsigned"}


class Key(NamedTuple):
    """A public key, and the digest that signatures name it by."""

    public: ec.EllipticCurvePublicKey
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.fingerprint[:_SHOWN]}..."


class Rule(NamedTuple):
    """Whose signatures count for which models."""

    models: str
    """Pattern of names in specs: ``pets-*``."""
    keys: tuple[Key, ...]
    unsigned: bool = False
    """Whether such a model needs no signature."""


class Policy(NamedTuple):
    """Rules; the first one whose pattern a model's name fits decides."""

    path: Path
    rules: tuple[Rule, ...]


def check_signature(artifact: Artifact, path: Path) -> Key | None:
    """Check that a model was signed by somebody whom this machine trusts.

    Args:
        artifact: the model, read whole: what is checked is what the engine gets.
        path: a file of public keys (PEM), or a policy (JSON) that says whose key counts for which model.

    Returns:
        The key; None for a model that a policy lets pass unsigned.

    Raises:
        ModelFileError: no signature, one of another key, another file than was signed, or no usable key or policy.
        MissingDependencyError: the package cryptography is not installed.
    """
    policy = read_policy(path)
    name = artifact.spec.name
    for rule in policy.rules:
        if not fnmatchcase(name, rule.models):
            continue
        if rule.unsigned:
            return None
        return _check(artifact, rule.keys, policy.path)
    raise ModelFileError(
        f"{artifact.path}: {policy.path} has no rule for a model named {name!r}: add one, or rename it"
    )


def read_policy(path: Path) -> Policy:
    """Read a file of public keys, which count for every model, or a policy. Raises as ``check_signature``."""
    content = _read(path, "a public key (PEM) or a policy (JSON)")
    if b"-----BEGIN" in content:
        return Policy(path, (Rule("*", _keys(content, path)),))
    expected = (
        'expected public keys in PEM, or {"rules": [{"models": "pets-*", "keys": ["maker.pub"]}]}, each rule with '
        'keys, or with "unsigned": true'
    )
    try:
        found = json.loads(content)
        rules = []
        for entry in found["rules"]:
            rules.append(_rule(entry, path.parent))
    except ModelFileError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path}: is no key and no policy ({error}): {expected}") from error
    return Policy(path, tuple(rules))


def _rule(entry: Mapping[str, Any], folder: Path) -> Rule:
    if unknown := set(entry) - _RULE_FIELDS:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    unsigned = entry.get("unsigned", False)
    names = entry.get("keys", [])
    if not isinstance(entry["models"], str) or not isinstance(names, list) or not isinstance(unsigned, bool):
        raise TypeError("a rule has models: text, keys: a list, unsigned: true or false")
    if unsigned == bool(names):
        raise ValueError("a rule has keys, or unsigned: true, one of the two")
    keys: list[Key] = []
    for name in names:
        place = folder / name
        keys += _keys(_read(place, "a public key"), place)
    return Rule(entry["models"], tuple(keys), unsigned)


def _read(path: Path, expected: str) -> bytes:
    try:
        return read_regular(path, _KEY_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"{path}: cannot be read ({reason}), expected {expected}") from error


def _keys(content: bytes, path: Path) -> tuple[Key, ...]:
    """The public keys of a PEM file, one at least."""
    serialization = cryptography(path).serialization
    if b"PRIVATE KEY-----" in content:
        raise ModelFileError(
            f"{path}: is a private key, which signs: keep it off devices, and give its public key: openssl ec -in "
            "KEY -pubout -out PUBLIC"
        )
    keys = []
    for block in _PUBLIC_KEY.findall(content):
        try:
            public = serialization.load_pem_public_key(block)
        except ValueError as error:
            raise ModelFileError(f"{path}: its public key cannot be read ({error})") from error
        keys.append(key_of(public, path))
    if not keys:
        raise ModelFileError(f"{path}: has no public key, expected -----BEGIN PUBLIC KEY-----")
    return tuple(keys)


def key_of(public: Any, path: Path) -> Key:
    """A public key with its fingerprint.

    Raises:
        ModelFileError: it is of another kind than the format has.
    """
    curve = getattr(getattr(public, "curve", None), "name", "")
    if curve not in CURVES:
        kind = f"curve {curve}" if curve else type(public).__name__.lstrip("_")
        raise ModelFileError(
            f"{path}: is a key of another kind ({kind}), expected an elliptic curve {', '.join(CURVES)}: openssl "
            "ecparam -name prime256v1 -genkey -noout -out KEY"
        )
    serialization = cryptography(path).serialization
    text = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(public, hashlib.sha256(text).hexdigest())


def cryptography(path: Path) -> Any:
    """The package's primitives: ``serialization``, ``hashes`` and ``ec``.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        from cryptography.hazmat import primitives
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: F401  # attributes of primitives
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: F401
    except ImportError as error:
        raise _not_installed(path) from error
    return primitives


def _not_installed(path: Path) -> MissingDependencyError:
    return missing(f"{path}: a signature", "cryptography", "verify")


def envelope_bytes(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of a payload."""
    return f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload


def signature_of(model: Path) -> Path | None:
    """The file that has a model's signature: its own, or that of a folder above it; None where there is neither."""
    own = model.with_name(model.name + FILE_SUFFIX)
    places = [own, *(folder / FOLDER_SIGNATURE for folder in list(model.absolute().parents)[:_LEVELS])]
    return next(filter(Path.exists, places), None)


def _check(artifact: Artifact, keys: tuple[Key, ...], trust: Path) -> Key:
    model = artifact.path
    place = signature_of(model)
    if place is None:
        raise ModelFileError(
            f"{model}: is not signed, and {trust} asks for it: expected {model.name}{FILE_SUFFIX} or "
            f"{FOLDER_SIGNATURE} beside it: unet-export sign --key KEY {model.parent}"
        )
    try:
        payload, key = _opened(read_regular(place, _SIGNATURE_BYTES), keys, trust)
        digests = _digests(payload)
    except ModelFileError as error:
        raise ModelFileError(f"{place}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{place}: is no signature of OpenSSF Model Signing 1.0 ({reason}): sign again") from error
    name = SINGLE if SINGLE in digests else model.absolute().relative_to(place.absolute().parent).as_posix()
    if name not in digests:
        raise ModelFileError(
            f"{model}: is not among the {len(digests)} files that {place} signs: sign the folder again"
        )
    actual = hashlib.sha256(artifact.content).hexdigest()
    if actual != digests[name]:
        raise ModelFileError(
            f"{model}: is not the file that was signed: its SHA-256 is {actual[:_SHOWN]}..., signed is "
            f"{digests[name][:_SHOWN]}...: take it again from whom you trust"
        )
    return key


def _opened(content: bytes, keys: tuple[Key, ...], trust: Path) -> tuple[Any, Key]:
    """(the statement in a bundle, the key that signed it); nothing of the statement is read before that is known."""
    bundle = json.loads(content)
    if bundle["mediaType"] != BUNDLE_TYPE:
        raise ValueError(f"mediaType {bundle['mediaType']!r}, expected {BUNDLE_TYPE}")
    named = bundle["verificationMaterial"].get("publicKey")
    if named is None:
        raise ModelFileError("is signed by certificate, not by a plain key, which needs no network: unet-export sign")
    envelope = bundle["dsseEnvelope"]
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise ValueError(f"payloadType {envelope['payloadType']!r}, expected {PAYLOAD_TYPE}")
    payload, signature = _decoded(envelope["payload"]), _decoded(envelope["signatures"][0]["sig"])
    hint = named.get("hint") or ""
    able = [key for key in keys if hint in ("", key.fingerprint)]
    if not able:
        known = ", ".join(map(str, keys))
        raise ModelFileError(f"is signed with the key {str(hint)[:_SHOWN]}..., {trust} trusts {known}: do not use it")
    for key in able:
        if _is_signed(key, signature, payload):
            return json.loads(payload), key
    raise ModelFileError("its signature does not fit what it lists: changed after it was signed, do not use it")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from error


def _is_signed(key: Key, signature: bytes, payload: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.public.verify(signature, envelope_bytes(payload), algorithm(key.public))
    except InvalidSignature:
        return False
    return True


def algorithm(key: Any) -> ec.ECDSA:
    """How a key of a curve signs, public or private."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(getattr(hashes, CURVES[key.curve.name])())


def _digests(statement: Mapping[str, Any]) -> dict[str, str]:
    """Name of each signed file -> its SHA-256."""
    for field, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if statement[field] != expected:
            raise ValueError(f"{field} {statement[field]!r}, expected {expected}")
    method = statement["predicate"]["serialization"]["method"]
    if method != "files":
        raise ValueError(f"files signed as {method}, expected whole files")
    found = {}
    for resource in statement["predicate"]["resources"]:
        if resource["algorithm"] != "sha256":
            raise ValueError(f"digests by {resource['algorithm']}, expected sha256")
        found[str(resource["name"])] = str(resource["digest"])
    (subject,) = statement["subject"]
    if subject["digest"]["sha256"] != root_digest(found):
        raise ValueError("its digest of all files is not that of those it lists")
    return found


def root_digest(digests: Mapping[str, str]) -> str:
    """SHA-256 of all files' digests, in the order of their list."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests.values()))).hexdigest()
