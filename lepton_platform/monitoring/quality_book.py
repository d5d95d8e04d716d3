"""What was found of the served quality, in the state database: the figures over time."""

import sqlalchemy as sa

from lepton_platform.database import engine
from lepton_platform.monitoring.quality import ServedQuality
from lepton_platform.monitoring.words import Counts
from lepton_platform.settings import Settings

_metadata = sa.MetaData()
_found = sa.Table(
    "served_quality",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("task", sa.String, nullable=False),
    sa.Column("as_of", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("result", sa.JSON, nullable=False),
)
sa.Index("served_quality_time", _found.c.task, _found.c.as_of)


class QualityBook:
    """The verdicts of all tasks, in the order of their times."""

    def __init__(self, settings: Settings) -> None:
        self._engine = engine(settings.database_url)
        _metadata.create_all(self._engine)

    def write(self, task: str, found: ServedQuality) -> None:
        values = {"task": task, "as_of": found.as_of, "state": found.state, "result": found.as_dict()}
        with self._engine.begin() as connection:
            connection.execute(_found.insert().values(**values))

    def of(self, task: str, most: int = 1_000) -> list[ServedQuality]:
        """The latest first."""
        query = sa.select(_found.c.result).where(_found.c.task == task)
        query = query.order_by(_found.c.as_of.desc(), _found.c.id.desc()).limit(most)
        with self._engine.connect() as connection:
            rows = connection.execute(query).scalars().all()
        return [ServedQuality(**{**row, "counts": Counts(**row["counts"])}) for row in rows]
