"""A Bento is verified before anything of it is loaded: signed by a key that this workspace trusts, and unchanged.

The signature is the OpenSSF Model Signing v1 format, made and checked by its library, model-signing: a Sigstore bundle with
a DSSE envelope over an in-toto statement that names every file by its SHA-256. It is signed with a local elliptic-curve
key (P-256, ECDSA); no server is asked. `model_signing verify key` checks it too, without this package.

A signature is random, so it is never part of a stage's output: it lies in the Bento store's copy alone. What the library
leaves open is decided here: a bundle has these fields and no other, every file is covered, and nothing but plain files
of known formats is there. Verification reads bytes. Measured on two cores: 60 ms for a Bento of 65 MB, and half a second
to import the library, once a process.
"""

import base64
import contextlib
import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lepton_platform.serving.bundle import MANIFEST, VERSION_LENGTH
from lepton_platform.serving.manifest import SIGNATURE, agreed, differences, file_hash, listing
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    from model_signing import hashing

KEYS = "keys"  # the folder, in a workspace's state
CURVES = ("secp256r1", "secp384r1", "secp521r1")  # that a signature may be made with; a new key has the first
MOST_SIGNATURE_BYTES = 16 << 20  # ten thousand files are 3 MiB


@dataclass(frozen=True)
class Keys:
    """A workspace's key pair, made when it is first needed, and the public keys whose Bentos it accepts.

    ``own.key`` signs and is nobody else's to read. ``trusted/*.pub`` are trusted, ``own.pub`` among them: a team
    trusts another machine by having its ``own.pub`` in this folder under another name. All are PEM.
    """

    folder: Path

    @classmethod
    def of(cls, settings: Settings) -> "Keys":
        return cls(settings.state_dir / KEYS)

    @property
    def private(self) -> Path:
        return self.folder / "own.key"

    @property
    def public(self) -> Path:
        return self.folder / "trusted" / "own.pub"

    def trusted(self) -> dict[str, Path]:
        """Fingerprint → file. A file that holds no usable key trusts nobody."""
        found: dict[str, Path] = {}
        for path in sorted(self.public.parent.glob("*.pub")):
            with contextlib.suppress(ValueError, OSError):
                found[fingerprint(path.read_bytes())] = path
        return found

    def own(self) -> Path:
        """The private key's file, made if there is none; who signs trusts itself. ``StageFailed`` if it is unusable."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        self._folders()
        if not self.private.exists():
            self._make()
        if self.private.stat().st_mode & 0o077:
            raise StageFailed(f"Others can read the key {self.private}. `chmod 600` it, or remove it for a new one.")
        try:
            key = load_pem_private_key(self.private.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise StageFailed(f"{self.private} holds no key without a password: {error}.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
            raise StageFailed(f"{self.private} is no elliptic-curve key of {', '.join(CURVES)}.")
        pem = _pem(key.public_key())
        if not self.public.is_file() or self.public.read_bytes() != pem:
            _replace(self.public, pem)
        return self.private

    def _folders(self) -> None:
        for folder in (self.folder, self.public.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _make(self) -> None:
        """Whole or not at all; of two processes that make one, the first one's stays."""
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric import ec

        self.folder.chmod(0o700)  # somebody may have made it for the keys that are trusted
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        fresh = _beside(self.private)
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(fresh, self.private)
        finally:
            fresh.unlink(missing_ok=True)


def fingerprint(public: bytes) -> str:
    """SHA-256 of a public key's PEM, which is what `sha256sum own.pub` prints; ``ValueError`` if it is no such key."""
    return hashlib.sha256(_canonical(public)).hexdigest()


def sign(bento: Path, keys: Keys) -> None:
    """Write ``signature.json``, with this workspace's own key, over every other file in the folder."""
    from model_signing import signing

    config = signing.Config().use_elliptic_key_signer(private_key=keys.own()).set_hashing_config(_hashing())
    config.sign(bento, bento / SIGNATURE)


def verified(bento: Path, keys: Keys, tag: str | None = None, origin: Path | None = None) -> dict[str, Any]:
    """The manifest of a Bento that a trusted key has signed and that nobody has changed since.

    ``tag``: what its place says that it is; ``origin``: where the person who reads has it, if not there. ``StageFailed``
    says why it is refused; nothing of it has been loaded.
    """
    try:
        if bento.is_symlink() or not bento.is_dir():
            raise ValueError("it is not there, or it is a link and no folder")
        return _verified(bento, keys, tag)
    except (ValueError, OSError) as error:
        where = origin or bento
        raise StageFailed(f"The Bento in {where} is refused and nothing of it was loaded: {error}.") from None


def _verified(bento: Path, keys: Keys, tag: str | None) -> dict[str, Any]:
    files = listing(bento)
    if MANIFEST not in files:
        raise ValueError(f"it has no {MANIFEST}, so it is no Bento of this platform")
    if SIGNATURE not in files:
        raise ValueError(
            f"it is unsigned, it has no {SIGNATURE}. What is built is signed when it enters its workspace's Bento store: "
            "take it from there (.lepton/bentoml/bentos, or `bentoml export`), not from models/. What this workspace built "
            "is put there anew, signed, by `lepton deploy TASK`"
        )
    signer, digests = _claimed(bento / SIGNATURE)
    public = keys.trusted().get(signer)
    if public is None:
        raise ValueError(_unknown(signer, keys))
    _prove(bento, public, files, digests)
    manifest = agreed(bento, digests)
    found = f"{manifest['task']}:{digests[MANIFEST][:VERSION_LENGTH]}"  # a version is the manifest's hash, cut
    if tag not in (None, found):
        raise ValueError(f"its place says {tag}, its content is {found}")
    return manifest


def _unknown(signer: str, keys: Keys) -> str:
    known = keys.trusted()
    named = ", ".join(f"{path.name} {digest}" for digest, path in known.items()) or "none"
    unusable = sorted(path.name for path in keys.public.parent.glob("*.pub") if path not in known.values())
    return (
        f"it is signed with a key that is not trusted here, SHA-256 {signer}; trusted: {named}"
        + (f"; unusable or there twice: {', '.join(unusable)}" if unusable else "")
        + f". If you know whose it is, put that workspace's .lepton/{KEYS}/trusted/own.pub into {keys.public.parent} "
        "under another name, NAME.pub; `sha256sum` of it must print that number"
    )


def _prove(bento: Path, public: Path, files: list[str], digests: Mapping[str, str]) -> None:
    """``ValueError`` unless this key has signed these digests, and every file has the one that was signed."""
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=public).set_hashing_config(_hashing())
    try:
        config.verify(bento, bento / SIGNATURE)
    except InvalidSignature:
        raise ValueError(
            f"its signature is broken: {SIGNATURE} was altered, or {public.name} did not make it"
        ) from None
    except Exception as error:  # whatever the library stumbles over, the Bento is not verified
        found = {name: file_hash(bento / name) for name in files if name != SIGNATURE}
        wrong = _changed(differences(digests, found)) or f"its signature cannot be checked: {error}"
        raise ValueError(wrong) from None
    bare = sorted({*files} - {SIGNATURE, *digests})  # the library honours a signature that says what to ignore
    if bare:
        raise ValueError(f"its signature does not cover {', '.join(bare[:5])}")


def _changed(named: list[str]) -> str:
    if f"{MANIFEST} was changed" in named:
        return f"its {MANIFEST} was altered after it was signed"
    return f"it is not what was signed: {'; '.join(named[:5])}" if named else ""


def _hashing() -> "hashing.Config":
    from model_signing import hashing

    config = hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    return config.set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _plain(text: str) -> str:
    """Base64 has other spellings of the same bytes: they are not accepted."""
    if base64.b64encode(base64.b64decode(text, validate=True)).decode() != text:
        raise ValueError("not canonical base64")
    return text


_Base64 = Annotated[str, AfterValidator(_plain)]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    """A part of the bundle: these fields, and no other."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Hint(_Part):
    hint: _Sha256


class _Material(_Part):
    publicKey: _Hint
    tlogEntries: list[Any] = Field(default=[], max_length=0)


class _Signed(_Part):
    sig: _Base64
    keyid: Literal[""] = ""


class _Envelope(_Part):
    payload: _Base64
    payloadType: Literal["application/vnd.in-toto+json"]
    signatures: list[_Signed] = Field(min_length=1, max_length=1)


class _Bundle(_Part):
    mediaType: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verificationMaterial: _Material
    dsseEnvelope: _Envelope


class _Resource(_Part):
    name: str
    algorithm: Literal["sha256"]
    digest: _Sha256


class _Predicate(BaseModel):
    resources: list[_Resource]


class _Statement(BaseModel):
    predicateType: Literal["https://model_signing/signature/v1.0"]
    predicate: _Predicate


def _claimed(path: Path) -> tuple[str, dict[str, str]]:
    """Who is said to have signed which digests; nothing of it is proven yet. ``ValueError`` if it says no such thing."""
    if path.stat().st_size > MOST_SIGNATURE_BYTES:
        raise ValueError(f"its {SIGNATURE} is larger than {MOST_SIGNATURE_BYTES >> 20} MiB")
    try:
        bundle = _Bundle.model_validate_json(path.read_bytes())
        statement = _Statement.model_validate_json(base64.b64decode(bundle.dsseEnvelope.payload))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"its signature is broken: {SIGNATURE}, {where}: {first['msg']}") from None
    signer = bundle.verificationMaterial.publicKey.hint
    return signer, {resource.name: resource.digest for resource in statement.predicate.resources}


def _canonical(public: bytes) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise ValueError(f"it is no public key in PEM of a curve among {', '.join(CURVES)}")
    return _pem(key)


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    return key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}-{secrets.token_hex(8)}")


def _replace(path: Path, content: bytes) -> None:
    fresh = _beside(path)
    fresh.write_bytes(content)
    fresh.replace(path)
