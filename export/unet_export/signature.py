"""Signing: the owner of a key says that these files are meant as they are. See ``unet_runtime.core.signature``."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from unet_export.errors import ExportError
from unet_export.staging import REJECTED_NAME, is_signature
from unet_runtime.core.errors import ModelFileError, OutputError
from unet_runtime.core.files import read_regular, write_text
from unet_runtime.core.signature import (
    BUNDLE_TYPE,
    FILE_SUFFIX,
    FOLDER_SIGNATURE,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    SINGLE,
    STATEMENT_TYPE,
    Key,
    algorithm,
    cryptography,
    envelope_bytes,
    key_of,
    root_digest,
)

_KEY_BYTES = 2**20
_GIT = (".git", ".gitattributes", ".github", ".gitignore")
"""What other signers leave out, too: it does not travel with a model."""


class PasswordError(ExportError):
    """The private key is encrypted, and no password was given, or another one."""


def sign(place: Path, key: Path, *, password: str = "", overwrite: bool = False) -> tuple[Path, int]:
    """Sign a model file, or all files of a folder.

    Args:
        place: a file, which gets ``FILE.sig`` beside it, or a folder, which gets ``model.sig``.
        key: the private key, an elliptic curve's in PEM.
        password: of the key, where it is encrypted.
        overwrite: replace a file of that name that is no signature, too.

    Returns:
        (the signature, the number of files that it covers)

    Raises:
        ExportError: no such place, nothing to sign, links among the files, or what the gate rejected.
        PasswordError: the key needs another password.
        ModelFileError: no usable key.
        OutputError: the signature cannot be written.
    """
    if not place.exists():
        raise ExportError(f"{place}: no such file or folder, expected a model or an export to sign")
    private, public = _private_key(key, password)
    target = place / FOLDER_SIGNATURE if place.is_dir() else place.with_name(place.name + FILE_SUFFIX)
    if target.exists() and not overwrite and not is_signature(target):
        raise OutputError(f"{target}: exists, and is no signature: move it away, or insist with --overwrite")
    digests = _digests(place, target)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": place.resolve().name, "digest": {"sha256": root_digest(digests)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [*_GIT, *([target.name] if place.is_dir() else [])],
            },
            "resources": [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in digests.items()],
        },
    }
    payload = json.dumps(statement, indent=1).encode()
    signature = private.sign(envelope_bytes(payload), algorithm(private))
    write_text(target, json.dumps(_bundle(payload, signature, public)))
    return target, len(digests)


def _private_key(path: Path, password: str) -> tuple[Any, Key]:
    try:
        content = read_regular(path, _KEY_BYTES)
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read ({error}), expected a private key (PEM)") from error
    if b"BEGIN PUBLIC KEY" in content:
        raise ModelFileError(f"{path}: is a public key, which verifies; a private one signs")
    load = cryptography(path).serialization.load_pem_private_key
    try:
        private = load(content, password.encode() if password else None)
    except TypeError as error:  # encrypted and no password, or the reverse
        if password:
            private = load(content, None)
        else:
            raise PasswordError(f"{path}: is encrypted: its password is missing") from error
    except Exception as error:  # ValueError, UnsupportedAlgorithm: no PEM, no key, another password
        if password:
            raise PasswordError(f"{path}: is encrypted with another password, or damaged ({error})") from error
        raise ModelFileError(f"{path}: is no private key in PEM ({error})") from error
    return private, key_of(private.public_key(), path)


def _digests(place: Path, target: Path) -> dict[str, str]:
    """Name below ``place`` -> SHA-256 of each file that is signed, in the order of the names."""
    if not place.is_dir():
        return {SINGLE: _digest(place)}
    found: dict[str, str] = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place)
        if name.parts[0] == REJECTED_NAME:
            raise ExportError(f"{path}: failed its gate: move {REJECTED_NAME} away before you sign {place}")
        if path.is_symlink():
            raise ExportError(f"{path}: is a link: what it leads to can change, sign files alone")
        if name.parts[0] in _GIT or path == target or path.is_dir():
            continue
        found[name.as_posix()] = _digest(path)
    if not found:
        raise ExportError(f"{place}: has no file to sign")
    return found


def _digest(path: Path) -> str:
    try:
        if not path.is_file():
            raise OSError("no regular file")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ExportError(f"{path}: cannot be signed ({error.strerror or error})") from error


def _bundle(payload: bytes, signature: bytes, key: Key) -> dict[str, Any]:
    return {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.fingerprint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
