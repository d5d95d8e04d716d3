"""Does Dagster know what ``dvc.lock`` says? Answered by one small file, so that nothing need be loaded to ask."""

from hashlib import sha256

from lepton_platform.settings import Settings

MARKER = "synced"


def _digest(settings: Settings) -> str:
    lock = settings.workspace / "dvc.lock"
    return sha256(lock.read_bytes()).hexdigest() if lock.is_file() else "none"


def is_synced(settings: Settings) -> bool:
    marker = settings.state_dir / MARKER
    return marker.is_file() and marker.read_text() == _digest(settings)


def mark_synced(settings: Settings) -> None:
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    (settings.state_dir / MARKER).write_text(_digest(settings))
