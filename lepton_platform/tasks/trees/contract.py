"""What the photos and their boxes must be, once they are clean."""

from pydantic import Field

from lepton_platform.data import contracts
from lepton_platform.data.contracts import pictures, suite
from lepton_platform.tasks.trees.preprocess import LABELS, MARGIN_PX, TILE_PX

COLUMNS = {
    "id": "VARCHAR",
    "event_time": "TIMESTAMP WITH TIME ZONE",
    "image": "BLOB",
    "width": "INTEGER",
    "height": "INTEGER",
    "boxes": "STRUCT(x1 FLOAT, y1 FLOAT, x2 FLOAT, y2 FLOAT, label VARCHAR, crowd BOOLEAN, owned BOOLEAN)[]",
    "photo": "VARCHAR",
    "left": "INTEGER",
    "top": "INTEGER",
    "core": "INTEGER[]",
    "origin": "VARCHAR",
}
# A row a box: its number in its picture from 1, its size, and whether its edges are the picture's, where it may be cut
_BOXES = (
    "(SELECT id, photo, width, height, n, b.x1 AS x1, b.y1 AS y1, b.x2 AS x2, b.y2 AS y2, b.label AS name, b.crowd AS crowd,"
    " b.owned AS owned, b.x2 - b.x1 AS wide, b.y2 - b.y1 AS high,"
    " b.x1 <= 0 OR b.y1 <= 0 OR b.x2 >= width OR b.y2 >= height AS at_edge"
    " FROM (SELECT id, photo, width, height, unnest(boxes) AS b, unnest(range(1, len(boxes) + 1)) AS n FROM {batch}))"
)
_A_BOX = "SELECT id, n AS box, x1, y1, x2, y2"


class ContractParams(contracts.ContractParams):
    min_rows: int = Field(20, ge=1, description="Fewer photos and tiles are not enough to learn from.")
    min_boxes: int = Field(500, ge=1, description="Fewer boxes are not enough; each is counted once.")
    min_side: int = Field(64, ge=1, description="The shortest side of a picture, in pixels.")
    max_side: int = Field(4_096, ge=1, description="The longest side of a picture, in pixels.")
    max_boxes: int = Field(500, ge=1, description="The most boxes in a picture.")
    max_empty_share: float = Field(0.5, ge=0, lt=1, description="Of the pictures, those without any box.")
    min_box_px: float = Field(4, gt=0, description="The shortest side of a box that no edge has cut, in pixels.")
    max_box_px: float = Field(400, gt=0, description="The longest side of a box, in pixels.")
    max_aspect: float = Field(4, ge=1, description="Longer side of a box by its shorter, where no edge has cut it.")


def expectations(params: ContractParams) -> list[suite.Expectation]:
    return [
        *suite.columns(COLUMNS),
        suite.row_count(params.min_rows),
        *suite.not_null(*COLUMNS),
        *suite.unique("id"),
        pictures.readable("image"),
        pictures.sides("image", params.min_side, params.max_side),
        pictures.all_different("image"),
        suite.rows(
            f"SELECT id, width, height FROM {{batch}} WHERE width <> {pictures.side('image', 'width')} "
            f"OR height <> {pictures.side('image', 'height')}",
            "'width' and 'height' are the picture's.",
        ),
        *_tiles(),
        *_boxes(params),
        suite.one_of("origin", ("source", "feedback")),
    ]


def _tiles() -> list[suite.Expectation]:
    return [
        suite.rows(
            "SELECT id, core, width, height FROM {batch} WHERE len(core) <> 4 OR core[1] < 0 OR core[2] < 0 "
            "OR core[3] > width OR core[4] > height OR core[1] >= core[3] OR core[2] >= core[4]",
            "Every core is a rectangle in its picture.",
        ),
        suite.rows(
            f"SELECT id, width, height FROM {{batch}} WHERE origin = 'source' AND greatest(width, height) > "
            f"{round(max(1.25 * TILE_PX, TILE_PX + 2 * MARGIN_PX))}",
            "No picture of the source is larger than a tile.",
        ),
        suite.rows(
            "SELECT a.id AS id, b.id AS other FROM {batch} AS a JOIN {batch} AS b ON a.photo = b.photo AND a.id < b.id "
            'WHERE a."left" + a.core[1] < b."left" + b.core[3] AND b."left" + b.core[1] < a."left" + a.core[3] '
            "AND a.top + a.core[2] < b.top + b.core[4] AND b.top + b.core[2] < a.top + a.core[4]",
            "No two cores of a photo overlap: what is counted tile by tile is counted once.",
        ),
    ]


def _boxes(params: ContractParams) -> list[suite.Expectation]:
    known = ", ".join(f"'{label}'" for label in LABELS)
    return [
        suite.rows(
            f"SELECT count(*) AS boxes FROM {_BOXES} WHERE owned HAVING count(*) < {params.min_boxes}",
            f"There are at least {params.min_boxes} boxes.",
        ),
        suite.rows(
            f"SELECT id, len(boxes) AS boxes FROM {{batch}} WHERE len(boxes) > {params.max_boxes}",
            f"A picture has at most {params.max_boxes} boxes.",
        ),
        suite.rows(
            "SELECT count(*) AS empty, rows FROM {batch}, (SELECT count(*) AS rows FROM {batch}) WHERE len(boxes) = 0 "
            f"GROUP BY rows HAVING count(*) > {params.max_empty_share!r} * rows",
            f"At most {params.max_empty_share:.0%} of the pictures have no box.",
        ),
        suite.rows(
            f"SELECT id, n AS box, name FROM {_BOXES} WHERE name IS NULL OR name NOT IN ({known})",
            f"Every box is one of {', '.join(LABELS)}.",
        ),
        suite.rows(
            f"{_A_BOX} FROM {_BOXES} WHERE x1 IS NULL OR y1 IS NULL OR x2 IS NULL OR y2 IS NULL OR crowd IS NULL "
            "OR owned IS NULL",
            "No part of a box is missing.",
        ),
        suite.rows(
            f"{_A_BOX} FROM {_BOXES} WHERE NOT (0 <= x1 AND x1 < x2 AND x2 <= width AND 0 <= y1 AND y1 < y2 AND y2 <= height)",
            "Every box lies in its picture and has an area.",
        ),
        suite.rows(
            f"{_A_BOX} FROM {_BOXES} WHERE greatest(wide, high) > {params.max_box_px!r} "
            f"OR (least(wide, high) < {params.min_box_px!r} AND NOT at_edge)",
            f"A box is {params.min_box_px:g} to {params.max_box_px:g} pixels wide and high.",
        ),
        suite.rows(
            f"{_A_BOX} FROM {_BOXES} WHERE greatest(wide, high) > {params.max_aspect!r} * least(wide, high) AND NOT at_edge",
            f"The longer side of a box is at most {params.max_aspect:g} times the shorter.",
        ),
    ]
