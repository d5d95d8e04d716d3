"""A workspace for the length of a rehearsal: a temporary folder with stores of its own; nothing outside hears of it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lepton_platform.settings import STORES, Settings, use_workspace

# What a production environment may say: none of it is used, nobody is alarmed by an alarm that was made on purpose.
_ALONE = {
    "LEPTON_BACKEND": "local",
    "LEPTON_HOST": "127.0.0.1",
    "LEPTON_AUTH": "off",
    **{f"LEPTON_{name}": "" for name in ("STATE_URL", "REDIS_URL", "REMOTE_URL", "SMTP_URL")},
    **{f"LEPTON_ALERT_{name}": "" for name in ("WEBHOOK", "EMAIL", "SENDER")},
}


@contextmanager
def scratch(task: str, profile: str) -> Iterator[Settings]:
    """Settings of an empty workspace that has this task alone; it is removed at the end.

    This process changes to it: folder, environment and settings, and back again.
    """
    from lepton_platform.pipeline.workspace import init

    before, here = dict(os.environ), Path.cwd()
    with tempfile.TemporaryDirectory(prefix="lepton-rehearsal-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve() / "workspace"
        try:
            for variable in ("LEPTON_WORKSPACE", *STORES):
                os.environ.pop(variable, None)
            os.environ.update(_ALONE)
            init(folder, profile, [task])
            os.chdir(folder)  # DVC reads its files relative to where it is called
            yield use_workspace(folder)
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(before)
