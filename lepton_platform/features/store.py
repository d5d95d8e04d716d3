"""The feature store of a workspace: what is registered, what can be read online. Live state, never hashed.

The stage ``features`` leaves Parquet; ``publish`` tells Feast of it and fills the online store. One Feast project,
``lepton``, holds the views of all tasks, each under ``<task>_<view>``; a feature service ``<task>`` names them all.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from lepton_platform.data.dataset import Dataset
from lepton_platform.features.views import DECLARATION, EVENT, FeatureView, read_declaration
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    from feast import FeatureStore

PROJECT = "lepton"
STATE = Path(".lepton") / "feast"  # below the workspace
STORE_FILE, REPO_FILE, IGNORE_FILE = "feature_store.yaml", "feature_repo.py", ".feastignore"
HEADER = "# Rendered by `lepton`: what Feast needs to know of this workspace. Do not edit.\n"
REPO = '''\
"""What `feast plan` and `feast apply` find in this workspace: the views of every task whose features are made."""

from pathlib import Path

from lepton_platform.features.store import repo_objects
from lepton_platform.settings import use_workspace

# Feast goes to the workspace before it reads this, and may find the file of another workspace under the same name
globals().update(repo_objects(use_workspace(Path.cwd())))
'''
IGNORE = "# Feast looks for definitions in every .py file; they are all in feature_repo.py.\n*/\n"
REDIS = "LEPTON_FEAST_REDIS"  # where the file says that the address is: passwords stay in the environment
KEYS_PER_READ = 500  # SQLite binds a limited number of values

_stores: dict[str, "FeatureStore"] = {}  # those that are open for reading, by workspace and addresses


def feature_store(settings: Settings) -> dict[str, Any]:
    """The workspace's ``feature_store.yaml`` as values: DuckDB and SQLite, or Redis and the state's database."""
    production = settings.backend == "production"
    registry: dict[str, Any] = {"path": str(STATE / "registry.db")}
    if production and settings.state_url:
        # a killed materialisation must not close the views to readers
        kept = {"serve_features_while_materializing": True}
        registry = {"registry_type": "sql", "path": "${LEPTON_STATE_URL}", **kept}
    online: dict[str, Any] = {"type": "sqlite", "path": str(STATE / "online.db")}
    if production and settings.redis_url:
        online = {"type": "redis", "connection_string": f"${{{REDIS}}}"}
    return {
        "project": PROJECT,
        "provider": "local",
        "registry": {**registry, "cache_ttl_seconds": 60},
        "offline_store": {"type": "duckdb"},
        "online_store": online,
        "entity_key_serialization_version": 3,
        # without it every past value is written too, in no order, and any of them may stay
        "materialization": {"pull_latest_features": True},
    }


def render_feature_store(settings: Settings) -> str:
    """The text of ``feature_store.yaml``; the same for every workspace of the same backend."""
    import yaml

    return HEADER + yaml.safe_dump(feature_store(settings), sort_keys=False)


def write_files(settings: Settings) -> None:
    """Leave in the workspace what a plain ``feast`` needs when typed there; a file of the user's own is kept."""
    for name, content in {STORE_FILE: render_feature_store(settings), REPO_FILE: REPO, IGNORE_FILE: IGNORE}.items():
        path = settings.path(name)
        ours = not path.exists() or (name == STORE_FILE and path.read_text(encoding="utf-8").startswith(HEADER))
        if ours and not (path.exists() and path.read_text(encoding="utf-8") == content):
            path.write_text(content, encoding="utf-8")


def redis_connection(url: str) -> str:
    """``redis://user:password@host:port/db`` in Feast's words: ``host:port,db=…,username=…,password=…,ssl=true``."""
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        raise StageFailed(f"LEPTON_REDIS_URL is not redis://host:port or rediss://host:port, but {parts.scheme}://…")
    said = {
        "db": parts.path.strip("/"),
        "username": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "ssl": "true" if parts.scheme == "rediss" else "",
    }
    return ",".join([f"{parts.hostname}:{parts.port or 6379}", *(f"{k}={v}" for k, v in said.items() if v)])


def publish(settings: Settings, task: str, *, version: str) -> dict[str, int]:
    """Register the task's views and make their latest values readable online; rows of each view that is online.

    ``version`` is the hash of the features' folder: what is published already is not published again. Keys that are
    gone from the features are gone from the online store, too. Killed, it is done again from the start.
    """
    with _alone(settings):
        folder, known = _features(settings, task), _known(settings, task)
        stamp = _stamp(settings, task, version)
        if known.items() >= stamp.items():
            return known["rows"]
        marker = _marker(settings, task)
        marker.unlink(missing_ok=True)
        write_files(settings)
        views = read_declaration(folder)
        _upload(settings, task, views)
        with _duckdb(settings):
            store = _open(settings)
            _register(store, settings, task, views)
            _forget_lost(store, settings)
            rows = {v.name: _fill(store, settings, task, v, Dataset(folder / v.name)) for v in views if v.online}
        _stores.clear()  # they remember the registry as it was
        part = marker.with_suffix(".part")
        part.write_text(json.dumps({**stamp, "rows": rows}, indent=2) + "\n", encoding="utf-8")
        os.replace(part, marker)
        return rows


def is_published(settings: Settings, task: str, *, version: str) -> bool:
    """Is this version of the features' folder what can be read online? Feast is not imported."""
    return _known(settings, task).items() >= _stamp(settings, task, version).items()


def online_features(settings: Settings, task: str, view: str, keys: Sequence[str]) -> dict[str, list[Any]]:
    """The latest values of a view's columns (name → a value a key, in order); ``None`` where nothing is known.

    The first read of a process opens the store (seconds), later ones take about a millisecond.
    """
    store, name = _opened(settings), f"{task}_{view}"
    columns = _columns(store, name)
    key = columns.pop(0)
    values: dict[str, list[Any]] = {column: [] for column in columns}
    for start in range(0, len(keys), KEYS_PER_READ):
        answer = store.get_online_features(
            features=[f"{name}:{column}" for column in columns],
            entity_rows=[{key: one} for one in keys[start : start + KEYS_PER_READ]],
        ).to_dict()
        for column in columns:
            values[column].extend(answer[column])
    return values


def repo_objects(settings: Settings) -> dict[str, Any]:
    """Every object of Feast that the workspace's features stand for, by a name of its own: for ``feature_repo.py``."""
    found: dict[str, Any] = {}
    for path in sorted(settings.workspace.glob(f"data/*/features/{DECLARATION}")):
        task = path.parent.parent.name
        found |= {_label(one): one for one in _objects(settings, task, read_declaration(path.parent))}
    return found


def _label(one: Any) -> str:
    return f"{type(one).__name__.lower()}_{one.name}"


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One writer at a time: Feast rewrites the registry as a whole. The kernel frees the lock on a kill."""
    folder = settings.workspace / STATE
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _published(settings: Settings) -> Path:
    """The folder that says what is online."""
    return settings.workspace / STATE / "published"


def _marker(settings: Settings, task: str) -> Path:
    return _published(settings) / f"{task}.json"


def _known(settings: Settings, task: str) -> dict[str, Any]:
    marker = _marker(settings, task)
    return json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {}


def _stamp(settings: Settings, task: str, version: str) -> dict[str, str]:
    return {"version": version, "target": _target(settings, task)}


def _forget_lost(store: "FeatureStore", settings: Settings) -> None:
    """Tasks that the registry no longer knows are published anew: a kill may have left it empty."""
    registered = {service.name for service in store.list_feature_services()}
    for marker in _published(settings).glob("*.json"):
        if marker.stem not in registered:
            marker.unlink()


def _target(settings: Settings, task: str) -> str:
    """Which stores are meant, as a hash: the addresses may hold passwords."""
    where = [_source(settings, task), feature_store(settings), settings.redis_url, settings.state_url]
    return hashlib.sha256(json.dumps(where).encode()).hexdigest()[:16]


def _features(settings: Settings, task: str) -> Path:
    folder = settings.path("data", task, "features")
    if not (folder / DECLARATION).is_file():
        raise StageFailed(f"{folder} holds no features. `lepton run {task} --upto features` makes them.")
    return folder


def _source(settings: Settings, task: str) -> str:
    """Where Feast reads the task's features: the stage's folder or, in production, a copy beside the DVC remote."""
    if settings.backend == "production" and settings.remote_url:
        return f"{settings.remote_url.rstrip('/')}/feast/{task}"
    return str(settings.path("data", task, "features").resolve())


def _upload(settings: Settings, task: str, views: Sequence[FeatureView]) -> None:
    source, folder = _source(settings, task), _features(settings, task)
    if source == str(folder.resolve()):
        return
    from fsspec.core import url_to_fs

    files, root = url_to_fs(source)
    for view in views:
        there, shards = f"{root}/{view.name}", Dataset(folder / view.name).shards()
        files.makedirs(there, exist_ok=True)
        for shard in shards:
            files.put_file(str(shard), f"{there}/{shard.name}")
        for left in set(map(str, files.ls(there, detail=False))):  # shards of an earlier, longer version
            if Path(left).name not in {shard.name for shard in shards}:
                files.rm_file(left)


@contextmanager
def _duckdb(settings: Settings) -> Iterator[None]:
    """The offline store's engine for the time of a block; it reads remote addresses through fsspec."""
    from lepton_platform.features import feast_objects as fo

    spill = settings.path(str(STATE), "spill")
    with fo.engine(spill, settings.remote_url if settings.backend == "production" else ""):
        yield


def _objects(settings: Settings, task: str, views: Sequence[FeatureView]) -> list[Any]:
    from lepton_platform.features import feast_objects as fo

    source = _source(settings, task)
    made = [fo.feature_view(view, f"{source}/{view.name}", prefix=f"{task}_", tags={"task": task}) for view in views]
    service = fo.service(task, made, f"All features of the task {task}.")
    return [*fo.entities(views), *(view.batch_source for view in made), *made, service]


def _register(store: "FeatureStore", settings: Settings, task: str, views: Sequence[FeatureView]) -> None:
    """Apply the task's objects; its views that are no longer declared go, with what is online of them."""
    objects = _objects(settings, task, views)
    names = {f"{task}_{view.name}" for view in views}
    gone: list[Any] = [view for view in store.list_feature_views(tags={"task": task}) if view.name not in names]
    store.apply(objects, objects_to_delete=[*gone, *(view.batch_source for view in gone)], partial=not gone)


def _fill(store: "FeatureStore", settings: Settings, task: str, view: FeatureView, rows: Dataset) -> int:
    """Write the view's latest value of every key; how many keys."""
    from lepton_platform.features import feast_objects as fo

    name, key = f"{task}_{view.name}", view.entity.key
    table = rows.read([key, EVENT])
    keys, times = table[key].unique(), table[EVENT].to_pylist()
    known = _published(settings) / f"{name}.keys.parquet"
    if known.is_file() and not set(pq.read_table(known)[0].to_pylist()) <= set(keys.to_pylist()):
        fo.empty_online(store, name)
    known.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({key: keys}), known)  # first: killed while writing, they are known to be there
    if times:
        fo.materialize(store, name, min(times), max(times))
    return len(keys)


def _open(settings: Settings) -> "FeatureStore":
    from lepton_platform.features import feast_objects as fo

    if settings.redis_url:
        os.environ[REDIS] = redis_connection(settings.redis_url)
    if settings.state_url:
        os.environ["LEPTON_STATE_URL"] = settings.state_url
    (settings.workspace / STATE).mkdir(parents=True, exist_ok=True)
    return fo.open_store(_expanded(feature_store(settings)), settings.workspace)


def _expanded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with what they take from the environment, as Feast reads them from the file."""
    whole: dict[str, Any] = json.loads(json.dumps(values))
    for section in whole.values():
        if isinstance(section, dict):
            section |= {k: os.path.expandvars(v) for k, v in section.items() if isinstance(v, str)}
    return whole


def _opened(settings: Settings) -> "FeatureStore":
    key = settings.model_dump_json(include={"workspace", "backend", "state_url", "redis_url"})
    if key not in _stores:
        _stores[key] = _open(settings)
    return _stores[key]


def _columns(store: "FeatureStore", name: str) -> list[str]:
    view = store.get_feature_view(name)
    return [view.entity_columns[0].name, *(feature.name for feature in view.features)]
