"""Signatures of models: who made them. Real keys and files; the reference is the package model_signing."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from model_signing import hashing as reference_hashing
from model_signing import signing as reference_signing
from model_signing import verifying as reference

from tests.helpers.colours import colour_spec, write_colour_model
from unet_export.bundle.bundle import _Model, _take_models
from unet_export.cli.command import command as export_command
from unet_export.errors import ExportError
from unet_export.signature import PasswordError, sign
from unet_runtime import ModelFileError, OutputError, Segmenter
from unet_runtime.cli import info
from unet_runtime.cli.run import command as run_command
from unet_runtime.cli.serve import command as serve_command
from unet_runtime.core.signature import FOLDER_SIGNATURE
from unet_runtime.segmenter import VERIFY_KEY

NAME = "colours-4.float32.onnx"


def write_key(folder: Path, name: str, key: Any = None, password: bytes = b"") -> Path:
    """A private key, with its public one beside it as ``NAME.pub``."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    private = folder / f"{name}.key"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private.with_suffix(".pub").write_bytes(public)
    return private


@pytest.fixture
def maker(tmp_path: Path) -> Path:
    return write_key(tmp_path, "maker")


@pytest.fixture
def public(maker: Path) -> Path:
    return maker.with_suffix(".pub")


@pytest.fixture
def folder(tmp_path: Path, colour_model: Path) -> Path:
    """An export: a model, its report, a folder."""
    place = tmp_path / "export"
    (place / "assets").mkdir(parents=True)
    shutil.copyfile(colour_model, place / NAME)
    (place / "report.html").write_text("report")
    (place / "assets" / "more.json").write_text("{}")
    return place


def verified_by_reference(place: Path, signature: Path, public: Path) -> None:
    config = reference.Config().use_elliptic_key_verifier(public_key=public)
    hashes = reference_hashing.Config()
    if place.is_dir():
        hashes = hashes.set_ignored_paths(paths=[signature.relative_to(place)])
    config.set_hashing_config(hashes).verify(place, signature)


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_the_reference_verifies_ours(folder: Path, tmp_path: Path, curve: Callable[[], Any]) -> None:
    key = write_key(tmp_path, "other", ec.generate_private_key(curve()))
    signature, files = sign(folder, key)
    assert (signature, files) == (folder / FOLDER_SIGNATURE, 3)
    verified_by_reference(folder, signature, key.with_suffix(".pub"))
    assert Segmenter(folder / NAME, verify_key=key.with_suffix(".pub")).spec.name == "colours"
    (folder / "report.html").write_text("another")
    with pytest.raises(ValueError, match="Hash mismatch"):
        verified_by_reference(folder, signature, key.with_suffix(".pub"))


def test_the_reference_verifies_a_file_of_ours(folder: Path, maker: Path, public: Path) -> None:
    signature, files = sign(folder / NAME, maker)
    assert (signature, files) == (folder / f"{NAME}.sig", 1)
    verified_by_reference(folder / NAME, signature, public)
    Segmenter(folder / NAME, verify_key=public)


@pytest.mark.parametrize("single", [False, True])
def test_ours_verifies_the_reference(folder: Path, maker: Path, public: Path, single: bool) -> None:
    place = folder / NAME if single else folder
    signature = folder / (f"{NAME}.sig" if single else FOLDER_SIGNATURE)
    reference_signing.Config().use_elliptic_key_signer(private_key=maker).sign(place, signature)
    Segmenter(folder / NAME, verify_key=public)
    with pytest.raises(ModelFileError, match="is signed with the key"):
        Segmenter(folder / NAME, verify_key=write_key(folder.parent, "stranger").with_suffix(".pub"))


def test_a_model_deeper_in_a_signed_folder(folder: Path, maker: Path, public: Path) -> None:
    inner = folder / "colours" / "1"
    inner.mkdir(parents=True)
    shutil.move(folder / NAME, inner / "model.onnx")
    sign(folder, maker)
    Segmenter(inner / "model.onnx", verify_key=public)


def test_a_model_that_is_sent_to_another_process_is_checked_there(folder: Path, maker: Path, public: Path) -> None:
    sign(folder, maker)
    sent = pickle.dumps(Segmenter(folder / NAME, verify_key=public))
    assert pickle.loads(sent).spec.name == "colours"
    (folder / FOLDER_SIGNATURE).unlink()
    with pytest.raises(ModelFileError, match="is not signed"):
        pickle.loads(sent)


def changed(signature: Path, change: Callable[[dict[str, Any]], None], *, inner: bool = False) -> None:
    """Change the bundle, or the statement in it, which its signature then does not fit."""
    bundle = json.loads(signature.read_text())
    if inner:
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        change(statement)
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    else:
        change(bundle)
    signature.write_text(json.dumps(bundle))


def without_key(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"] = {"certificate": {}}


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "type": (lambda bundle: bundle.update(mediaType="text/plain"), "mediaType 'text/plain', expected"),
    "payload type": (lambda bundle: bundle["dsseEnvelope"].update(payloadType="x"), "payloadType 'x', expected"),
    "no signature": (lambda bundle: bundle["dsseEnvelope"].update(signatures=[]), "is no signature of OpenSSF"),
    "no base64": (lambda bundle: bundle["dsseEnvelope"].update(payload="a b"), "no base64"),
    "certificate": (without_key, "signed by certificate"),
    "no object": (lambda bundle: bundle.clear(), "is no signature of OpenSSF"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_bundle(folder: Path, maker: Path, public: Path, case: str) -> None:
    signature, _ = sign(folder, maker)
    change, message = BROKEN[case]
    changed(signature, change)
    with pytest.raises(ModelFileError, match=message):
        Segmenter(folder / NAME, verify_key=public)


def test_a_statement_that_was_changed(folder: Path, maker: Path, public: Path) -> None:
    signature, _ = sign(folder, maker)
    changed(signature, lambda statement: statement["predicate"]["resources"].clear(), inner=True)
    with pytest.raises(ModelFileError, match="does not fit what it lists"):
        Segmenter(folder / NAME, verify_key=public)


@pytest.mark.parametrize("text", ["", "[]", "null", "x", "[" * 100_000])
def test_what_is_no_signature(folder: Path, public: Path, text: str) -> None:
    (folder / FOLDER_SIGNATURE).write_text(text)
    with pytest.raises(ModelFileError, match="is no signature of OpenSSF"):
        Segmenter(folder / NAME, verify_key=public)


def test_another_file_than_was_signed(folder: Path, maker: Path, public: Path) -> None:
    model = folder / NAME
    sign(folder, maker)
    write_colour_model(model, replace(colour_spec(), license="another"))  # whole by its digest
    with pytest.raises(ModelFileError, match="is not the file that was signed"):
        Segmenter(model, verify_key=public)
    shutil.copyfile(model, folder / "renamed.onnx")
    with pytest.raises(ModelFileError, match="is not among the 3 files"):
        Segmenter(folder / "renamed.onnx", verify_key=public)


def test_signed_in_another_way(folder: Path, maker: Path, public: Path) -> None:
    hashes = reference_hashing.Config().use_shard_serialization()
    config = reference_signing.Config().use_elliptic_key_signer(private_key=maker).set_hashing_config(hashes)
    config.sign(folder, folder / FOLDER_SIGNATURE)
    with pytest.raises(ModelFileError, match="signed as shards, expected whole files"):
        Segmenter(folder / NAME, verify_key=public)


def test_the_variable_holds_every_program_to_it(
    folder: Path, maker: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VERIFY_KEY, str(public))
    with pytest.raises(ModelFileError, match="is not signed"):
        Segmenter(folder / NAME)
    sign(folder, maker)
    Segmenter(folder / NAME)
    Segmenter()  # part of the package


def test_a_policy(folder: Path, maker: Path, tmp_path: Path) -> None:
    write_key(tmp_path, "stranger")
    sign(folder, maker)
    policy = tmp_path / "policy.json"

    def verified(*rules: dict[str, Any]) -> None:
        policy.write_text(json.dumps({"rules": rules}))
        Segmenter(folder / NAME, verify_key=policy)

    verified({"models": "colours", "keys": ["maker.pub"]})
    verified({"models": "pets-*", "keys": ["stranger.pub"]}, {"models": "*", "keys": ["stranger.pub", "maker.pub"]})
    verified({"models": "col*", "unsigned": True}, {"models": "*", "keys": ["stranger.pub"]})
    with pytest.raises(ModelFileError, match="is signed with the key"):
        verified({"models": "col*", "keys": ["stranger.pub"]}, {"models": "*", "keys": ["maker.pub"]})
    with pytest.raises(ModelFileError, match="no rule for a model named 'colours'"):
        verified({"models": "pets-*", "keys": ["maker.pub"]})
    with pytest.raises(ModelFileError, match="a rule has keys, or unsigned"):
        verified({"models": "*"})
    with pytest.raises(ModelFileError, match="unknown key"):
        verified({"models": "*", "key": "maker.pub"})
    with pytest.raises(ModelFileError, match=r"lost\.pub: cannot be read"):
        verified({"models": "*", "keys": ["lost.pub"]})


def test_several_keys_in_one_file(folder: Path, maker: Path, tmp_path: Path) -> None:
    stranger = write_key(tmp_path, "stranger").with_suffix(".pub")
    both = tmp_path / "both.pem"
    both.write_bytes(stranger.read_bytes() + b"comment\n" + maker.with_suffix(".pub").read_bytes())
    sign(folder, maker)
    Segmenter(folder / NAME, verify_key=both)


KEYS: dict[str, tuple[Callable[[], Any], str]] = {
    "RSA": (lambda: rsa.generate_private_key(65537, 2048), "another kind .RSA"),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate, "another kind .Ed25519"),
    "curve": (lambda: ec.generate_private_key(ec.SECP256K1()), "another kind .curve secp256k1"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_another_kind(folder: Path, tmp_path: Path, kind: str) -> None:
    make, message = KEYS[kind]
    key = write_key(tmp_path, "other", make())
    with pytest.raises(ModelFileError, match=message):
        sign(folder, key)
    with pytest.raises(ModelFileError, match=message):
        Segmenter(folder / NAME, verify_key=key.with_suffix(".pub"))


def test_keys_in_the_wrong_place(folder: Path, maker: Path, public: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a public key"):
        sign(folder, public)
    with pytest.raises(ModelFileError, match="is a private key, which signs: keep it off devices"):
        Segmenter(folder / NAME, verify_key=maker)
    for content in (b"", b"x", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----", b"[]", b'{"rules": 1}', b"{}"):
        (tmp_path / "none.pub").write_bytes(content)
        with pytest.raises(ModelFileError, match=r"none\.pub: (is no key and no policy|has no public key)"):
            Segmenter(folder / NAME, verify_key=tmp_path / "none.pub")
        with pytest.raises(ModelFileError, match="is no private key"):
            sign(folder, tmp_path / "none.pub")


def test_an_encrypted_key(folder: Path, tmp_path: Path, public: Path) -> None:
    key = write_key(tmp_path, "locked", password=b"secret")
    with pytest.raises(PasswordError, match="its password is missing"):
        sign(folder, key)
    with pytest.raises(PasswordError, match="another password"):
        sign(folder, key, password="wrong")
    sign(folder, key, password="secret")
    Segmenter(folder / NAME, verify_key=key.with_suffix(".pub"))


def test_what_is_not_signed(folder: Path, maker: Path) -> None:
    (folder / "link").symlink_to(folder / NAME)
    with pytest.raises(ExportError, match="is a link"):
        sign(folder, maker)
    (folder / "link").unlink()
    (folder / "rejected").mkdir()
    with pytest.raises(ExportError, match="failed its gate"):
        sign(folder, maker)
    (folder / "rejected").rmdir()
    (folder / FOLDER_SIGNATURE).write_text("a letter")
    with pytest.raises(ExportError, match="no such file or folder"):
        sign(folder / "lost.onnx", maker)
    with pytest.raises(OutputError, match="is no signature"):
        sign(folder, maker)
    sign(folder, maker, overwrite=True)
    sign(folder, maker)


def test_a_bundle_takes_the_signature_with_it(folder: Path, maker: Path, public: Path, tmp_path: Path) -> None:
    (folder / "parity.json").write_text("{}")
    sign(folder, maker)
    digest = hashlib.sha256((folder / NAME).read_bytes()).hexdigest()
    _take_models(folder, [_Model(NAME, digest, frozenset())], tmp_path / "models")
    Segmenter(tmp_path / "models" / NAME, verify_key=public)


def test_the_commands(folder: Path, maker: Path, public: Path, sample_photo: Path, tmp_path: Path) -> None:
    def call(command: Any, *arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(command, [*map(str, arguments)], standalone_mode=False)
        if isinstance(done.exception, ModelFileError):
            return done.exception.exit_code, str(done.exception)
        code = 2 if done.exception else done.return_value
        return code, done.output + str(done.exception)

    model = folder / NAME
    code, text = call(run_command, sample_photo, "--model", model, "--verify-key", public, "-o", tmp_path / "out")
    assert code == 3
    assert "is not signed" in text
    assert call(export_command, "sign", folder, "--key", maker)[0] == 0
    code, text = call(run_command, sample_photo, "--model", model, "--verify-key", public, "-o", tmp_path / "out")
    assert code == 0, text
    assert any((tmp_path / "out").iterdir())
    assert len(info._describe(model, public)["signed_by"]) == 64
    for command, more in ((run_command, (sample_photo,)), (serve_command, ()), (info.command, ())):
        code, text = call(command, *more, "--verify-key", public)
        assert code == 2
        assert "part of the package" in text
