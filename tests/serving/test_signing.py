"""A Bento is verified before anything of it is loaded: what passes, what is refused, and that a refusal reads only bytes."""

import base64
import compileall
import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_platform.serving.bundle import MANIFEST, version_of
from lepton_platform.serving.manifest import SIGNATURE, dump, file_hash, listing, tree
from lepton_platform.serving.signing import Keys, fingerprint, sign, verified
from lepton_platform.serving.store import checked, import_bento, import_signed, stored, tag_of
from lepton_platform.stage import StageFailed
from tests.serving.conftest import ROOT, make_bento
from tests.serving.models import WORDS

CODE = "src/lepton_platform/serving/app.py"
Tamper = Callable[[Path], object]
_loaded: list[tuple[str, str]] | None = None


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _loaded is not None and event in {"exec", "subprocess.Popen", "ctypes.dlopen", "pickle.find_class"}:
        _loaded.append((event, args[0].co_filename if event == "exec" else str(args)))


sys.addaudithook(_hear)  # for the life of the process: it cannot be removed


@contextlib.contextmanager
def nothing_loaded(*folders: Path, unchanged: bool = True) -> Iterator[None]:
    """No code from below these folders runs, no process starts, nothing is unpickled, and no file there changes."""
    global _loaded
    before = [tree(folder) for folder in folders if unchanged]
    _loaded = []
    try:
        yield
    finally:
        heard, _loaded = _loaded, None
    below = tuple(map(str, folders))
    assert not [at for event, at in heard if event != "exec" or at.startswith(below)]
    assert not [m for m in list(sys.modules.values()) if str(getattr(m, "__file__", None) or "").startswith(below)]
    assert [tree(folder) for folder in folders if unchanged] == before


@dataclass
class Place:
    """A workspace's keys and Bento store; ``bento``: the one in it."""

    keys: Keys
    home: Path
    bento: Path

    @property
    def tag(self) -> str:
        return f"{self.bento.parent.name}:{self.bento.name}"

    def copy(self, folder: Path) -> "Place":
        shutil.copytree(self.home.parent, folder, symlinks=True)
        return Place(Keys(folder / "keys"), folder / "home", folder / self.bento.relative_to(self.home.parent))


def new_place(folder: Path, bento: Path) -> Place:
    keys, home = Keys(folder / "keys"), folder / "home"
    return Place(keys, home, import_bento(home, bento, keys))


@pytest.fixture(scope="session")
def stored_once(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return new_place(tmp_path_factory.mktemp("store"), bento)


@pytest.fixture
def place(stored_once: Place, tmp_path: Path) -> Place:
    """A store of one's own, to tamper with."""
    return stored_once.copy(tmp_path / "workspace")


@pytest.fixture(scope="session")
def another(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Another workspace, with another key and another Bento of the same task."""
    folder = tmp_path_factory.mktemp("another")
    return new_place(folder / "workspace", make_bento(folder, {**WORDS, "dull": 3.0}))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    told = json.loads(path.read_bytes())
    change(told)
    path.write_bytes(dump(told))


def flip(path: Path, at: int = -1, bits: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= bits
    path.write_bytes(content)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text("utf-8") + text, "utf-8")


def link(path: Path) -> None:
    """The same bytes, but elsewhere."""
    kept = path.parents[len(path.parts) - 1 - path.parts.index("home")] / "kept"
    shutil.move(path, kept)
    path.symlink_to(kept)


def restate(bento: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest and put the version that follows from it wherever one is."""
    old = version_of((bento / MANIFEST).read_bytes())
    edit(bento / MANIFEST, change)
    new = version_of((bento / MANIFEST).read_bytes())
    for name in ("bento.yaml", "README.md", "env/docker/Dockerfile"):
        (bento / name).write_text((bento / name).read_text("utf-8").replace(old, new), "utf-8")


def envelope(change: Callable[[dict[str, Any]], object]) -> Tamper:
    return lambda bento: edit(bento / SIGNATURE, lambda bundle: change(bundle["dsseEnvelope"]))


def statement(change: Callable[[dict[str, Any]], object]) -> Tamper:
    """Edit what was signed, and leave the signature."""

    def payload(part: dict[str, Any]) -> None:
        told = json.loads(base64.b64decode(part["payload"]))
        change(told)
        part["payload"] = base64.b64encode(json.dumps(told).encode()).decode()

    return envelope(payload)


TAMPERINGS: dict[str, tuple[Tamper, str]] = {
    "the model, one bit": (lambda b: flip(b / "src/model/model.onnx"), r"src/model/model\.onnx was changed"),
    "the tokenizer": (lambda b: append(b / "src/model/tokenizer.json", " "), r"tokenizer\.json was changed"),
    "the labels": (
        lambda b: edit(b / "src/model/config.json", lambda c: c["labels"].reverse()),
        r"config\.json was changed",
    ),
    "a line of code": (lambda b: append(b / CODE, "#\n"), r"app\.py was changed"),
    "the manifest": (lambda b: edit(b / MANIFEST, lambda m: m.update(labels=[])), r"manifest\.json was altered"),
    "the manifest, and its version with it": (
        lambda b: restate(b, lambda m: m["files"].pop(CODE)),
        r"manifest\.json was altered after it was signed",
    ),
    "what pip installs": (lambda b: append(b / "env/python/requirements.txt", "x\n"), r"requirements\.txt was changed"),
    "code that is missing": (lambda b: (b / CODE).unlink(), r"app\.py is missing"),
    "code that is added": (lambda b: (b / "src/sitecustomize.py").write_text(""), r"src/sitecustomize\.py was added"),
    "a pickle": (lambda b: (b / "src/model/model.pkl").write_bytes(pickle.dumps(1)), r"model\.pkl is of a format"),
    "a checkpoint": (lambda b: (b / "src/model/model.pt").touch(), r"model\.pt is of a format"),
    "a library": (lambda b: (b / "src/_fast.so").touch(), r"_fast\.so is of a format"),
    "byte code": (lambda b: compileall.compile_dir(b / "src", quiet=1), r"\.pyc is byte code"),
    "a hidden file": (lambda b: (b / "src/.env").touch(), r"'src/\.env' has a name"),
    "what git would ignore": (lambda b: (b / ".gitignore").touch(), r"'\.gitignore' has a name"),
    "a link to the same bytes": (lambda b: link(b / "src/model/model.onnx"), r"model\.onnx is a symbolic link"),
    "a link to a folder": (lambda b: link(b / "src/model"), r"src/model is a symbolic link"),
    "a link to the whole": (lambda b: link(b), r"it is a link and no folder"),
    "a pipe": (lambda b: os.mkfifo(b / "src/model/pipe.json"), r"pipe\.json is neither a file nor a folder"),
    "no signature": (lambda b: (b / SIGNATURE).unlink(), r"unsigned.*Bento store"),
    "an empty signature": (lambda b: (b / SIGNATURE).write_bytes(b""), r"signature is broken"),
    "a signature that nests": (lambda b: (b / SIGNATURE).write_text("[" * 10**5), r"signature is broken"),
    "no manifest": (lambda b: (b / MANIFEST).unlink(), r"no Bento of this platform"),
    "no bento.yaml": (lambda b: (b / "bento.yaml").unlink(), r"bento\.yaml is missing"),
    "the signature itself": (
        envelope(lambda e: e["signatures"][0].update(sig=base64.b64encode(b"0" * 70).decode())),
        r"signature is broken",
    ),
    "another spelling of a signature": (
        envelope(lambda e: e["signatures"][0].update(sig="QR==")),
        r"broken.*not canonical base64",
    ),
    "two signatures": (envelope(lambda e: e["signatures"].append(e["signatures"][0])), r"broken.*signatures"),
    "a field that no bundle has": (envelope(lambda e: e.update(note="")), r"broken.*note"),
    "what the signature says of a file": (
        statement(lambda s: s["predicate"]["resources"].pop()),
        r"signature is broken: signature\.json was altered",
    ),
    "a weaker hash": (
        statement(lambda s: s["predicate"]["resources"][0].update(algorithm="md5")),
        r"broken.*algorithm",
    ),
    "an older statement": (
        statement(lambda s: s.update(predicateType="https://model_signing/Digests/v0.1")),
        r"broken.*predicateType",
    ),
}


def test_what_is_built_is_signed_in_the_store_alone(place: Place, bento: Path) -> None:
    with nothing_loaded(place.home):
        manifest = verified(place.bento, place.keys, place.tag)
        assert checked(place.home, place.tag, place.keys) == place.bento
    assert manifest == json.loads((bento / MANIFEST).read_bytes())
    assert not (bento / SIGNATURE).exists() and tree(place.bento) == tree(bento)
    assert set(listing(place.bento)) == {*tree(bento), SIGNATURE}
    assert place.keys.private.stat().st_mode & 0o777 == 0o600
    assert place.keys.folder.stat().st_mode & 0o777 == 0o700
    signature = (place.bento / SIGNATURE).read_bytes()
    assert import_bento(place.home, bento, place.keys) == place.bento
    assert (place.bento / SIGNATURE).read_bytes() == signature, "it was there, and is not signed again"


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_change_is_refused_with_its_reason(place: Place, name: str) -> None:
    tamper, reason = TAMPERINGS[name]
    tamper(place.bento)
    with nothing_loaded(place.home), pytest.raises(StageFailed, match=f"(?s)nothing of it was loaded: .*{reason}"):
        verified(place.bento, place.keys, place.tag)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_of_any_file_counts(stored_once: Place, data: st.DataObject) -> None:
    """Also of the signature: there is one spelling of it."""
    path = stored_once.bento / data.draw(st.sampled_from(listing(stored_once.bento)))
    content = path.read_bytes()
    if not content:
        return
    try:
        flip(path, data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255)))
        with pytest.raises(StageFailed):
            verified(stored_once.bento, stored_once.keys, stored_once.tag)
    finally:
        path.write_bytes(content)
    verified(stored_once.bento, stored_once.keys, stored_once.tag)


def test_a_name_that_is_not_its_own_is_refused(place: Place, another: Place) -> None:
    """Both are whole and well signed: an older Bento in the place of a newer one, or of another task."""
    shutil.copy(another.keys.public, place.keys.public.with_name("another.pub"))
    shutil.rmtree(place.bento)
    shutil.copytree(another.bento, place.bento)
    with nothing_loaded(place.home), pytest.raises(StageFailed, match=f"place says {place.tag}.*is {another.tag}"):
        checked(place.home, place.tag, place.keys)
    digits = stored(place.home, f"digits:{another.bento.name}")
    shutil.copytree(another.bento, digits)
    with pytest.raises(StageFailed, match="place says digits:"):
        checked(place.home, f"digits:{another.bento.name}", place.keys)
    verified(place.bento, place.keys)  # that was all that was wrong


def test_another_bentos_signature_is_refused(place: Place, another: Place) -> None:
    shutil.copy(another.keys.public, place.keys.public.with_name("another.pub"))
    shutil.copy(another.bento / SIGNATURE, place.bento / SIGNATURE)
    with nothing_loaded(place.home), pytest.raises(StageFailed, match=r"manifest\.json was altered"):
        verified(place.bento, place.keys, place.tag)


def test_another_key_is_refused_also_under_a_trusted_name(place: Place, another: Place) -> None:
    own = fingerprint(place.keys.public.read_bytes())
    sign(place.bento, another.keys)
    (place.keys.public.parent / "scrap.pub").write_text("no key", "utf-8")
    with nothing_loaded(place.home), pytest.raises(StageFailed) as refused:
        verified(place.bento, place.keys, place.tag)
    said = refused.value.message
    assert file_hash(another.keys.public) in said and own in said and f"{place.keys.public.parent}" in said
    assert "NAME.pub" in said and "unusable or there twice: scrap.pub" in said
    edit(place.bento / SIGNATURE, lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint=own))
    with nothing_loaded(place.home), pytest.raises(StageFailed, match=r"broken.*own\.pub did not make it"):
        verified(place.bento, place.keys, place.tag)


def test_a_workspace_accepts_anothers_bento_once_it_trusts_its_key(place: Place, another: Place) -> None:
    with nothing_loaded(place.home, another.home), pytest.raises(StageFailed, match="not trusted here"):
        import_signed(place.home, another.bento, place.keys)
    with pytest.raises(StageFailed, match="not trusted here"):
        import_bento(place.home, another.bento, place.keys)  # what is signed is not signed anew
    assert not stored(place.home, another.tag).exists() and not any((place.home / "tmp").iterdir())
    shutil.copy(another.keys.public, place.keys.public.with_name("another.pub"))
    there = import_signed(place.home, another.bento, place.keys)
    assert there == stored(place.home, another.tag) and (there.parent / "latest").read_text() == there.name
    assert {name: file_hash(there / name) for name in listing(there)} == {
        name: file_hash(another.bento / name) for name in listing(another.bento)
    }
    assert checked(place.home, another.tag, place.keys) == there
    place.keys.public.with_name("another.pub").unlink()
    with pytest.raises(StageFailed, match="not trusted here"):
        checked(place.home, another.tag, place.keys)


def test_what_comes_from_elsewhere_is_never_signed_on_the_way(place: Place, another: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(another.bento, elsewhere)
    (elsewhere / SIGNATURE).unlink()
    with (
        nothing_loaded(place.home, elsewhere),
        pytest.raises(StageFailed, match=f"in {elsewhere} is refused.*unsigned"),
    ):
        import_signed(place.home, elsewhere, place.keys)
    assert not (elsewhere / SIGNATURE).exists() and not stored(place.home, another.tag).exists()


INCONSISTENT: dict[str, tuple[Tamper, str]] = {
    "code that the manifest does not name": (
        lambda b: (b / "src/sitecustomize.py").write_text(""),
        r"does not name what is there: src/sitecustomize\.py was added",
    ),
    "a model that the config does not name": (
        lambda b: restate(b, lambda m: m["files"].update({"src/model/b.onnx": add(b / "src/model/b.onnx")})),
        r"its config\.json names, and no other: see b\.onnx",
    ),
    "another version": (lambda b: append(b / MANIFEST, "\n"), r"bento\.yaml has no line 'version: "),
    "a path for a task": (lambda b: restate(b, lambda m: m.update(task="../..")), "names no task"),
    "a later format": (lambda b: restate(b, lambda m: m.update(format=2)), "not of format 1"),
    "no JSON": (lambda b: (b / MANIFEST).write_bytes(b"\xff"), "refused"),
}


def add(path: Path) -> str:
    path.write_bytes(b"onnx")
    return file_hash(path)


@pytest.mark.parametrize("name", INCONSISTENT)
def test_a_trusted_key_does_not_make_sense_of_nonsense(place: Place, name: str) -> None:
    tamper, reason = INCONSISTENT[name]
    tamper(place.bento)
    sign(place.bento, place.keys)
    with nothing_loaded(place.home), pytest.raises(StageFailed, match=reason):
        verified(place.bento, place.keys)


def test_a_signature_that_leaves_files_out_is_refused(place: Place) -> None:
    """The library verifies what a signature covers, and honours its list of paths that it does not."""
    from model_signing import hashing, signing

    partial = hashing.Config().set_ignored_paths(paths=[SIGNATURE, "src/model", "env"])
    config = signing.Config().use_elliptic_key_signer(private_key=place.keys.own()).set_hashing_config(partial)
    config.sign(place.bento, place.bento / SIGNATURE)
    with pytest.raises(StageFailed, match="does not cover env/docker/Dockerfile"):
        verified(place.bento, place.keys)


def test_the_format_is_the_librarys(place: Place) -> None:
    """`model_signing` on the command line verifies what is signed here, and the other way round."""
    tool = [sys.executable, "-m", "model_signing"]
    where = [str(place.bento), "--signature", str(place.bento / SIGNATURE)]
    subprocess.run([*tool, "verify", "key", *where, "--public_key", str(place.keys.public)], check=True)
    (place.bento / SIGNATURE).unlink()
    subprocess.run([*tool, "sign", "key", *where, "--private_key", str(place.keys.private)], check=True)
    verified(place.bento, place.keys, place.tag)


def test_verifying_loads_no_model_and_importing_loads_no_library(place: Place) -> None:
    look = f"""
import sys
from pathlib import Path
from lepton_platform.serving.signing import Keys, verified
early = [name for name in ("model_signing", "cryptography", "sigstore") if name in sys.modules]
verified(Path({str(place.bento)!r}), Keys(Path({str(place.keys.folder)!r})))
late = ("onnxruntime", "onnx", "tokenizers", "bentoml", "lepton_platform.tasks", "lepton_platform.serving.app")
print(early, [name for name in late if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"


def test_byte_code_that_bentoml_left_is_removed_before_a_bento_is_used(place: Place) -> None:
    compileall.compile_dir(place.bento / "src", quiet=1)
    assert list(place.bento.rglob("*.pyc"))
    checked(place.home, place.tag, place.keys)
    assert not list(place.bento.rglob("__pycache__"))


def test_what_was_changed_in_the_store_is_replaced_by_what_was_built(place: Place, bento: Path) -> None:
    for tamper in (
        lambda: flip(place.bento / CODE),
        lambda: (place.bento / SIGNATURE).unlink(),
        lambda: link(place.bento),
    ):
        tamper()
        with pytest.raises(StageFailed):
            checked(place.home, place.tag, place.keys)
        assert import_bento(place.home, bento, place.keys) == place.bento
        assert checked(place.home, place.tag, place.keys).is_symlink() is False


def test_what_lies_in_the_store_is_verified_and_never_signed(place: Place, bento: Path) -> None:
    """Offered by its tag: a signature that was taken away does not come back."""
    compileall.compile_dir(place.bento / "src", quiet=1)
    assert import_bento(place.home, place.bento, place.keys) == place.bento
    (place.bento / SIGNATURE).unlink()
    with nothing_loaded(place.home), pytest.raises(StageFailed, match="unsigned"):
        import_bento(place.home, place.bento, place.keys)
    assert not (place.bento / SIGNATURE).exists()


def test_a_key_is_made_once(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    keys.public.parent.mkdir(parents=True)  # others' keys may be there first
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: keys.own().read_bytes(), range(16)))
    assert len(set(made)) == 1 and list(keys.trusted()) == [file_hash(keys.public)]
    assert sorted(path.name for path in keys.folder.iterdir()) == ["own.key", "trusted"]
    assert keys.folder.stat().st_mode & 0o777 == 0o700


def test_a_new_key_leaves_what_the_old_one_signed_valid(place: Place) -> None:
    place.keys.public.rename(place.keys.public.with_name("until-may.pub"))
    place.keys.private.unlink()
    place.keys.own()
    verified(place.bento, place.keys, place.tag)
    sign(place.bento, place.keys)
    verified(place.bento, place.keys, place.tag)
    assert len(place.keys.trusted()) == 2


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.chmod(0o640), "Others can read the key"),
        (lambda path: path.write_bytes(b"scrap"), "holds no key"),
        (lambda path: path.write_bytes(_rsa()), "no elliptic-curve key"),
    ],
)
def test_a_key_that_should_not_sign_does_not(tmp_path: Path, spoil: Callable[[Path], object], reason: str) -> None:
    keys = Keys(tmp_path / "keys")
    spoil(keys.own())
    with pytest.raises(StageFailed, match=reason):
        keys.own()


def _rsa() -> bytes:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())


def test_the_version_is_the_contents(place: Place) -> None:
    assert tag_of(place.bento) == place.tag
