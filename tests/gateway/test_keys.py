"""Keys are kept as hashes, told from typos, and made, listed and revoked by hand."""

import json
import re
import sqlite3
import string
import zlib
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lepton_platform.cli.common import UsageError
from lepton_platform.cli.keys import app
from lepton_platform.gateway.keys import FORM, SHOWN_CHARS, Keys, new_secret, whole
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed

BASE_62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "params.yaml").write_text("{}\n")
    return Settings(workspace=tmp_path)


@pytest.fixture
def keys(settings: Settings) -> Keys:
    return Keys(settings)


# --- the key itself


def number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 62 + BASE_62.index(digit)
    return value


def test_a_key_is_256_bits_and_their_crc():
    made = [new_secret() for _ in range(500)]
    assert len(set(made)) == 500 and all(re.fullmatch(FORM, secret) and whole(secret.encode()) for secret in made)
    bits = [number(secret[4:47]) for secret in made]
    assert max(bits) < 2**256 and max(bits).bit_length() > 248
    assert [number(secret[47:]) for secret in made] == [zlib.crc32(secret[:47].encode()) for secret in made]


@given(at=st.integers(4, 52), digit=st.sampled_from(BASE_62))
def test_one_wrong_character_is_told(at, digit):
    secret = new_secret()
    wrong = secret[:at] + digit + secret[at + 1 :]
    assert whole(wrong.encode()) == (wrong == secret)


# --- the table


def test_what_is_kept_is_no_key(settings, keys):
    key, secret = keys.create("shop", ["feedback", "predict"], rate_per_minute=60, lifetime=timedelta(days=90))
    keys.note_used({key.id: datetime.now(UTC)})
    kept = b"".join(path.read_bytes() for path in settings.state_dir.iterdir())
    assert sha256(secret.encode()).hexdigest().encode() in kept and secret[:SHOWN_CHARS].encode() in kept
    for first in range(SHOWN_CHARS, len(secret) - 8):
        assert secret[first : first + 8].encode() not in kept
    assert secret not in repr(key) and sha256(secret.encode()).hexdigest() not in json.dumps(key.as_dict())


def test_a_key_is_listed_as_it_was_made(keys):
    key, secret = keys.create("shop", ["feedback", "predict"], rate_per_minute=600, lifetime=timedelta(days=90))
    other, _ = keys.create("Ærø-lab@2", rate_per_minute=6, burst=9)
    assert keys.all() == [other, key] and secret.startswith(key.prefix)
    assert (key.scopes, key.rate_per_minute, key.burst, key.state) == (("predict", "feedback"), 600, 100, "active")
    assert (other.scopes, other.burst, other.expires_at, other.last_used_at) == (("predict",), 9, None, None)
    lasts = datetime.fromisoformat(key.expires_at or "") - datetime.fromisoformat(key.created_at)
    assert lasts == timedelta(days=90)


def test_a_key_from_before_there_was_trace_may_what_it_was_told(settings, keys):
    """Then ``predict`` meant answers and their past, and stood in the table by that name."""
    old, _ = keys.create("old", ["predict", "feedback"])
    new, _ = keys.create("new", ["predict"])
    both, _ = keys.create("both", ["trace", "predict"])
    with sqlite3.connect(settings.state_dir / "state.sqlite") as connection:
        connection.execute("UPDATE api_key SET scopes = ? WHERE id = ?", ('["predict", "feedback"]', old.id))
    found = {key.name: key.scopes for key in keys.all()}
    assert found == {"old": ("predict", "feedback", "trace"), "new": ("predict",), "both": ("predict", "trace")}
    assert new.scopes == ("predict",) and both.scopes == ("predict", "trace")
    assert {key.name: key.scopes for _, key in keys.hashed()} == found


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("", {}),
        ("12", {}),  # would be an id
        ("lep_shop", {}),
        ("a b", {}),
        ("a\n", {}),
        ("x" * 65, {}),
        ("shop", {"scopes": []}),
        ("shop", {"scopes": ["predict", "everything"]}),
        ("shop", {"rate_per_minute": 0}),
        ("shop", {"rate_per_minute": 10**10}),
        ("shop", {"rate_per_minute": 1, "burst": 0}),
        ("shop", {"burst": 5}),
        ("shop", {"lifetime": timedelta(0)}),
        ("shop", {"lifetime": timedelta(days=999_999_999)}),
    ],
)
def test_what_cannot_be_is_no_key(keys, name, more):
    with pytest.raises(ValueError):
        keys.create(name, **more)
    assert keys.all() == []


@pytest.mark.parametrize("by", ["name", "id", "beginning", "listed", "key"])
def test_a_key_is_revoked_by_whatever_is_known_of_it(keys, by):
    key, secret = keys.create("shop")
    other, _ = keys.create("till")
    wanted = {"name": "shop", "id": str(key.id), "beginning": key.prefix, "listed": f"{key.prefix}…", "key": secret}[by]
    revoked, held = keys.revoke(wanted)
    assert held and revoked.id == key.id and revoked.state == "revoked"
    assert keys.revoke(wanted) == (revoked, False)  # the first time stays
    assert keys.all() == [other, revoked]


def test_a_name_is_given_once_until_it_is_revoked(keys):
    first, _ = keys.create("shop")
    with pytest.raises(StageFailed, match="already"):
        keys.create("shop")
    keys.revoke("shop")
    second, _ = keys.create("shop")
    assert keys.revoke("shop")[0].id == second.id != first.id


@pytest.mark.parametrize("wanted", ["nothing", "7", "9" * 30, "lep_Ab12Cd", "", "\udcff", "lep_\udcff" + "x" * 60])
def test_what_is_not_there_is_not_revoked(keys, wanted):
    keys.create("shop")
    with pytest.raises(StageFailed, match="There is no key"):
        keys.revoke(wanted)


def test_a_key_that_is_not_known_is_not_said_again(keys):
    secret = new_secret()
    with pytest.raises(StageFailed) as failed:
        keys.revoke(secret)
    assert secret[: SHOWN_CHARS + 1] not in str(failed.value)


def test_the_last_use_never_goes_back(keys):
    key, _ = keys.create("shop")
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for moment in (noon, noon - timedelta(minutes=1)):
        keys.note_used({key.id: moment, 999: moment})
        assert keys.all()[0].last_used_at == "2026-03-01T12:00:00.000Z"


# --- the command


def lepton_keys(settings: Settings, *words: str):
    return CliRunner().invoke(app, [*words, "--workspace", str(settings.workspace)])


def test_the_command_gives_the_key_to_a_script_and_the_words_to_people(settings, keys, monkeypatch):
    monkeypatch.chdir(settings.workspace)
    words = ("--scope", "predict", "--scope", "feedback", "--rate", "600", "--expires", "90d")
    made = lepton_keys(settings, "create", "shop", *words)
    secret = made.stdout.removesuffix("\n")
    assert re.fullmatch(FORM, secret) and "predict, feedback; 600 a minute, 100 at once" in made.stderr
    [listed] = json.loads(lepton_keys(settings, "list", "--json").stdout)
    assert (listed["name"], listed["state"], listed["prefix"]) == ("shop", "active", secret[:SHOWN_CHARS])
    assert "shop" in lepton_keys(settings, "list").stdout
    assert "is revoked" in lepton_keys(settings, "revoke", "shop").stdout
    again = lepton_keys(settings, "revoke", secret)
    assert "was revoked already" in again.stdout and secret not in again.output
    assert [key.state for key in keys.all()] == ["revoked"]


@pytest.mark.parametrize(
    "words",
    [("--expires", "soon"), ("--expires", "0d"), ("--scope", "all"), ("--burst", "3"), ("--expires", "999999w")],
)
def test_a_wrong_word_is_a_wrong_use(settings, keys, monkeypatch, words):
    monkeypatch.chdir(settings.workspace)
    made = lepton_keys(settings, "create", "shop", *words)
    assert isinstance(made.exception, UsageError) and made.stdout == "" and keys.all() == []
