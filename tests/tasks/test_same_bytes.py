"""The data stages of tasks with media leave the same bytes in fresh processes, whatever the hash seed and threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, "")
from lepton_platform.tasks import load_part
from tests.tasks.stages import checked, cleaned, featured
task, folder, cache = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
source = load_part(task, "source")
few, contract = {
    "digits": ({"limit": 150}, {"min_rows": 100, "min_share": 0.01}),
    "trees": ({"tiles_per_photo": 1}, {"min_rows": 2, "min_boxes": 10}),
    "prompts": ({"limit": 40}, {"min_rows": 20, "min_sentences": 20}),
}[task]
cleaned(task, list(source.records(source.SourceParams(**few), cache)), folder, max_size=4_000_000)
checked(task, folder, **contract)
featured(task, folder, cache)
"""


@pytest.mark.parametrize("task", ["digits", "trees", "prompts"])
def test_two_fresh_processes_leave_the_same_bytes(task, tmp_path, cache_dir):
    found = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed}
        words = [sys.executable, "-c", SCRIPT, task, str(folder), str(cache_dir)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        assert done.returncode == 0, done.stderr
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".lepton" not in path.parts]
        found.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert len(found[0]) == {"prompts": 8}.get(task, 7) and found[0] == found[1]
