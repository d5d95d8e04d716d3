"""Which folder is the workspace: of everything that a command needs, what is known soonest."""

from pathlib import Path

MARKER = "params.yaml"  # a folder that holds this file is a workspace
STATE = ".lepton"  # in it: live state, git-ignored, never hashed


def find_workspace(start: Path) -> Path:
    """The nearest folder at or above ``start`` that is a workspace; ``start`` itself where none is."""
    start = start.resolve()
    return next((d for d in (start, *start.parents) if (d / MARKER).is_file()), start)
