"""What a task says of its features: plain data, read by the store, the training set and the service alike.

A task's ``preprocess.py`` lists its views in ``FEATURE_VIEWS``. Cheap to import: no Feast, no Arrow.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lepton_platform.stage import Params, Progress

if TYPE_CHECKING:
    import pyarrow as pa

EVENT, CREATED = "event_timestamp", "created_timestamp"  # when a value holds from; when it came to be known
DECLARATION = "views.json"
ColumnType = Literal["float32", "float64", "int64", "string", "bool", "float32[]", "int64[]"]
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class NoParams(Params):
    """A view that has nothing to tune."""


@dataclass(frozen=True)
class Entity:
    """What a feature is about. ``column`` holds its key in the clean table; the store calls it ``key``."""

    key: str
    column: str
    description: str = ""


@dataclass(frozen=True)
class Column:
    name: str
    type: ColumnType
    description: str = ""
    nullable: bool = False


@dataclass(frozen=True)
class Given:
    """What a view's function is given beside the rows."""

    params: Any  # an instance of the view's ``params``
    cache: Path
    progress: Progress


Compute = Callable[["pa.Table", Given], "Mapping[str, Any] | pa.Table"]


@dataclass(frozen=True)
class FeatureView:
    """Columns about one entity, and how they come about.

    ``function`` takes the columns ``reads`` of the clean table (beside the key's column and ``event_time``) and
    ``Given``. A view ``by_row`` gives a value to every row, valid from the row's time and known at it: the function
    returns the declared columns, each as long as the rows, and may be called on a part of the rows at a time.
    Any other sees all rows at once and returns a table with the key, ``event_timestamp``, ``created_timestamp`` and
    the declared columns: a history, each row of it valid until the next one of the same key.
    ``complete``: a row of the training set without a value is an error, not a null. ``online``: kept for reads by
    key. ``ttl``: how long a value holds; ``None`` for ever.
    """

    name: str
    entity: Entity
    columns: tuple[Column, ...]
    function: Compute | None = None
    reads: tuple[str, ...] = ()
    description: str = ""
    owner: str = ""
    ttl: timedelta | None = None
    by_row: bool = True
    complete: bool = True
    online: bool = True
    params: type[Params] = field(default=NoParams)

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        for name in (self.name, self.entity.key, *names):
            # Feast's DuckDB join drops columns that end in _y, and joins a view's name and a column's by "__"
            if not _NAME.fullmatch(name) or name.endswith("_y"):
                raise ValueError(f"'{name}' of view '{self.name}' must be lower_case words and not end in '_y'.")
        if self.ttl is not None and not _countable(self.ttl):
            raise ValueError(f"View '{self.name}': ttl must be whole days, or whole seconds of less than a day.")
        taken = {EVENT, CREATED, self.entity.key}
        if len(set(names)) != len(names) or taken & set(names) or not names:
            raise ValueError(f"View '{self.name}': columns must be there, differ, and not be called {sorted(taken)}.")

    def joined(self, column: Column) -> str:
        """The column's name in a training set."""
        return f"{self.name}__{column.name}"


def _countable(ttl: timedelta) -> bool:
    """Can the offline store's SQL say it? Its intervals have one unit."""
    return ttl > timedelta(0) and not ttl.microseconds and not (ttl.days and ttl.seconds)


class Preprocess(Protocol):
    """What the features need of a task's ``preprocess.py``."""

    FEATURE_VIEWS: Sequence[FeatureView]
    GROUP: str  # the column whose rows must not be split between training and test
    LABEL: str


def arrow_type(kind: ColumnType) -> "pa.DataType":
    import pyarrow as pa

    if kind.endswith("[]"):
        return pa.list_(arrow_type(kind.removesuffix("[]")))  # pyright: ignore[reportArgumentType]
    return {
        "float32": pa.float32(),
        "float64": pa.float64(),
        "int64": pa.int64(),
        "string": pa.string(),
        "bool": pa.bool_(),
    }[kind]


def view_schema(view: FeatureView) -> "pa.Schema":
    """Key, event and creation time (UTC, microseconds), the columns."""
    import pyarrow as pa

    time = pa.timestamp("us", tz="UTC")
    head = [(view.entity.key, pa.string()), (EVENT, time), (CREATED, time)]
    return pa.schema([*head, *((c.name, arrow_type(c.type)) for c in view.columns)])


def declared(views: Sequence[FeatureView]) -> str:
    """The views as JSON: what the features' folder says of itself."""

    def plain(view: FeatureView) -> dict[str, Any]:
        said = {k: v for k, v in asdict(view).items() if k not in {"function", "params", "ttl", "reads"}}
        return {**said, "ttl_s": None if view.ttl is None else view.ttl.total_seconds()}

    return json.dumps([plain(view) for view in views], indent=2, ensure_ascii=False) + "\n"


def read_declaration(folder: Path) -> list[FeatureView]:
    """The views that a features' folder holds, without their functions."""
    said: list[dict[str, Any]] = json.loads((folder / DECLARATION).read_text(encoding="utf-8"))
    return [_from_json(one) for one in said]


def _from_json(said: Mapping[str, Any]) -> FeatureView:
    ttl_s = said["ttl_s"]
    rest = {k: v for k, v in said.items() if k not in {"entity", "columns", "ttl_s"}}
    return FeatureView(
        entity=Entity(**said["entity"]),
        columns=tuple(Column(**column) for column in said["columns"]),
        ttl=None if ttl_s is None else timedelta(seconds=ttl_s),
        **rest,
    )
