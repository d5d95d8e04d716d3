"""What `feast plan` and `feast apply` find in this workspace: the views of every task whose features are made."""

from pathlib import Path

from lepton_platform.features.store import repo_objects
from lepton_platform.settings import use_workspace

# Feast goes to the workspace before it reads this, and may find the file of another workspace under the same name
globals().update(repo_objects(use_workspace(Path.cwd())))
