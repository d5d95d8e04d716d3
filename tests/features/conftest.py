"""Features that the room's tests share."""

from pathlib import Path

import pytest

from tests.features.rows import make_features, reviews, write_clean


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clean, contract and features of 160 reviews of 40 films. Nobody changes it."""
    folder = tmp_path_factory.mktemp("features")
    write_clean(folder, reviews(160))
    make_features(folder, folder)
    return folder
