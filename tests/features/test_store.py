"""The workspace's feature store: what is published can be read online, and says what the files say."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from lepton_platform.data.dataset import Dataset
from lepton_platform.features import store
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed
from tests.features.rows import make_features, reviews, write_clean


def settings_of(workspace: Path, **more: object) -> Settings:
    return Settings.model_validate({"workspace": workspace, **more})


def place(workspace: Path, features: Path, task: str = "reviews") -> None:
    target = workspace / "data" / task / "features"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(features, target)


@pytest.fixture(scope="module")
def published(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A workspace whose features are online. The process stands elsewhere."""
    settings = settings_of(tmp_path_factory.mktemp("store"))
    place(settings.workspace, made / "features")
    assert store.publish(settings, "reviews", version="1") == {"text_statistics": 160, "film_history": 40}
    return settings


def latest(features: Path, view: str) -> dict[str, dict]:
    rows = sorted(Dataset(features / view).read().to_pylist(), key=lambda row: row["event_timestamp"])
    key = next(iter(rows[0]))
    return {row[key]: {k: v for k, v in row.items() if k != key and "timestamp" not in k} for row in rows}


@pytest.mark.parametrize("view", ["text_statistics", "film_history"])
def test_what_is_online_is_the_latest_of_what_the_files_say(made, published, view):
    offline = latest(made / "features", view)
    keys = [*offline, "nobody"]
    online = store.online_features(published, "reviews", view, keys)
    for column, values in online.items():
        expected = [offline[key][column] for key in offline]
        assert values[:-1] == expected and values[-1] is None
    assert set(online) == set(next(iter(offline.values())))


def test_what_is_published_is_known_and_not_done_again(published, monkeypatch):
    assert store.is_published(published, "reviews", version="1")
    assert not store.is_published(published, "reviews", version="2")
    assert not store.is_published(published, "other", version="1")
    monkeypatch.setattr(store, "_open", lambda settings: pytest.fail("the store was opened"))
    assert store.publish(published, "reviews", version="1")["film_history"] == 40


def test_another_place_is_another_store(published, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(published.workspace, moved)
    assert not store.is_published(settings_of(moved), "reviews", version="1")


@pytest.fixture
def workspace(published: Settings, tmp_path: Path) -> Settings:
    """A workspace of its own with the same features online."""
    settings = settings_of(tmp_path / "workspace")
    settings.workspace.mkdir()
    place(settings.workspace, published.workspace / "data" / "reviews" / "features")
    store.publish(settings, "reviews", version="1")
    return settings


def test_what_is_gone_from_the_features_is_gone_online(workspace, tmp_path):
    write_clean(tmp_path, reviews(20, films=4))
    make_features(tmp_path, tmp_path)
    place(workspace.workspace, tmp_path / "features")
    assert store.publish(workspace, "reviews", version="2") == {"text_statistics": 20, "film_history": 4}
    words = store.online_features(workspace, "reviews", "text_statistics", ["r19", "r20"])["words"]
    assert words[0] is not None and words[1] is None
    found = store.online_features(workspace, "reviews", "film_history", ["f3"])
    assert found["past_reviews"] == [5]


def test_a_view_that_is_no_longer_declared_is_not_registered_any_more(workspace, tmp_path):
    write_clean(tmp_path, reviews(20))
    make_features(tmp_path, tmp_path, views=["film_history"])
    place(workspace.workspace, tmp_path / "features")
    store.publish(workspace, "reviews", version="2")
    views = [view.name for view in store._open(workspace).list_feature_views()]
    assert views == ["reviews_film_history"]


def test_tasks_share_a_store_and_one_that_a_kill_lost_is_published_anew(workspace, made):
    place(workspace.workspace, made / "features", "second")
    store.publish(workspace, "second", version="1")
    assert len(store._open(workspace).list_feature_views()) == 4
    (workspace.workspace / store.STATE / "registry.db").write_bytes(b"")  # Feast truncates it, then writes
    store._marker(workspace, "second").unlink()
    store.publish(workspace, "second", version="1")
    assert not store.is_published(workspace, "reviews", version="1")
    store.publish(workspace, "reviews", version="1")
    assert store.online_features(workspace, "reviews", "film_history", ["f1"])["past_reviews"] == [4]
    assert store.online_features(workspace, "second", "film_history", ["f1"])["past_reviews"] == [4]


def test_without_features_the_message_says_what_makes_them(tmp_path):
    with pytest.raises(StageFailed, match="lepton run reviews --upto features"):
        store.publish(settings_of(tmp_path), "reviews", version="1")


# --- a plain `feast`, typed in the workspace


def feast(folder: Path, *words: str) -> str:
    """What the program prints, called in the folder by somebody who set nothing up; nothing on stderr."""
    dropped = {"LEPTON_WORKSPACE", "DAGSTER_HOME", "BENTOML_HOME", "DVC_SITE_CACHE_DIR", "FEAST_USAGE"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    program = str(Path(sys.executable).parent / "feast")
    done = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_plain_feast_in_the_workspace_knows_the_views(published):
    listed = {line.split()[0]: line for line in feast(published.workspace, "feature-views", "list").splitlines()[1:]}
    assert set(listed) == {"reviews_text_statistics", "reviews_film_history"}
    assert all("AVAILABLE_ONLINE" in line for line in listed.values())


@pytest.mark.slow
def test_a_plain_feast_plan_finds_what_is_registered(published):
    """It calls every view with a source updated: Feast compares the times at which it made them."""
    (published.workspace / "data" / "reviews" / "tool.py").write_text("raise SystemExit('not a definition')\n")
    told = feast(published.workspace, "plan")
    said = {
        line.rsplit(" ", 1)[0] for line in told.splitlines() if line.startswith(("Created ", "Updated ", "Deleted "))
    }
    assert said == {"Updated feature view", "Created sqlite table"}
    assert told.count("Updated feature view reviews_") == 2


def test_the_repo_file_names_what_is_registered_and_nothing_else(published):
    found = store.repo_objects(published)
    opened = store._open(published)
    kinds = {type(one).__name__ for one in found.values()}
    assert kinds == {"Entity", "FileSource", "FeatureView", "FeatureService"}
    assert {v.name for v in opened.list_feature_views()} == {
        one.name for one in found.values() if type(one).__name__ == "FeatureView"
    }
    assert {e.name for e in opened.list_entities()} == {"review_id", "film_id"}


def test_the_users_own_files_are_kept_and_ours_are_brought_up_to_date(tmp_path):
    settings = settings_of(tmp_path)
    store.write_files(settings)
    ours = (tmp_path / store.STORE_FILE).read_text()
    (tmp_path / store.STORE_FILE).write_text(store.HEADER + "project: old\n")
    (tmp_path / store.REPO_FILE).write_text("mine = 1\n")
    store.write_files(settings)
    assert (tmp_path / store.STORE_FILE).read_text() == ours
    assert (tmp_path / store.REPO_FILE).read_text() == "mine = 1\n"
    (tmp_path / store.STORE_FILE).write_text("project: mine\n")
    store.write_files(settings)
    assert (tmp_path / store.STORE_FILE).read_text() == "project: mine\n"


# --- production


def test_grown_up_the_file_names_servers_and_holds_no_password(tmp_path):
    url = "rediss://me:pass%2Cword@cache:6380/2"
    grown = settings_of(tmp_path, backend="production", redis_url=url, state_url="postgresql://me:secret@db/lepton")
    text = store.render_feature_store(grown)
    assert "type: redis" in text and "registry_type: sql" in text
    assert "pass" not in text.replace("passwords", "") and "secret" not in text
    assert store.redis_connection(url) == "cache:6380,db=2,username=me,password=pass,word,ssl=true"
    with pytest.raises(StageFailed, match="is not redis://host:port"):
        store.redis_connection("http://cache:6379")


def test_grown_up_features_are_copied_beside_the_remote_and_left_shards_go(tmp_path):
    pytest.importorskip("fsspec")
    folder = tmp_path / "data" / "reviews" / "features"
    shards = Dataset(folder / "film_history")
    shards.write(pa.table({"x": list(range(10))}), rows_per_shard=4)
    (folder / "views.json").write_text(json.dumps([]))
    remote = f"file://{tmp_path / 'remote'}"
    grown = settings_of(tmp_path, backend="production", remote_url=remote)
    from lepton_platform.tasks.sentiment import preprocess

    views = [view for view in preprocess.FEATURE_VIEWS if view.name == "film_history"]
    store._upload(grown, "reviews", views)
    there = tmp_path / "remote" / "feast" / "reviews" / "film_history"
    assert [path.name for path in sorted(there.iterdir())] == [path.name for path in shards.shards()]
    shutil.rmtree(shards.path)
    shards.write(pa.table({"x": [1]}))
    store._upload(grown, "reviews", views)
    assert [path.name for path in there.iterdir()] == ["part-00000.parquet"]
