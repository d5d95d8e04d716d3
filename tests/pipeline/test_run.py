"""A stage's folder is replaced whole or not at all."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.pipeline.params import parse
from lepton_platform.pipeline.run import replaced
from lepton_platform.pipeline.versioning import tree_hash
from lepton_platform.stage import Params, StageFailed


def test_a_finished_block_replaces_the_folder(tmp_path: Path):
    target = tmp_path / "data" / "out"
    for content in ("one", "two"):
        with replaced(target) as out:
            (out / "file").write_text(content)
        assert (target / "file").read_text() == content
    assert list(target.parent.iterdir()) == [target], "nothing is left beside it"


def test_a_failed_block_leaves_the_old_folder_alone(tmp_path: Path):
    target = tmp_path / "out"
    with replaced(target) as out:
        (out / "file").write_text("old")
    with pytest.raises(RuntimeError), replaced(target) as out:
        (out / "file").write_text("half")
        raise RuntimeError
    assert (target / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_run_left_is_swept(tmp_path: Path):
    for left in (".out.new-0", ".out.old-0"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "half").write_text("x")
    with replaced(tmp_path / "out") as out:
        assert list(out.iterdir()) == []
        (out / "file").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(max_size=64), min_size=1, max_size=4))
def test_a_tree_hash_speaks_of_names_and_bytes_only(files: dict[str, bytes]):
    import tempfile

    hashes = set()
    for order in (sorted(files), sorted(files, reverse=True)):
        with tempfile.TemporaryDirectory() as folder:
            for name in order:
                Path(folder, name).write_bytes(files[name])
            hashes.add(tree_hash(Path(folder)))
    assert len(hashes) == 1 and hashes.pop().endswith(".dir")


class _Params(Params):
    learning_rate: float = 1e-3


def test_a_wrong_parameter_is_named_with_the_ones_there_are():
    with pytest.raises(StageFailed, match=r"learning_rat.*The names there are: learning_rate"):
        parse({"learning_rat": 1}, _Params, "params.yaml: sentiment.train")
    with pytest.raises(StageFailed, match="learning_rate"):
        parse({"learning_rate": "fast"}, _Params, "params.yaml: sentiment.train")
