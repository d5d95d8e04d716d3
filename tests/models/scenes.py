"""Pictures with squares and discs in them: small enough for real networks to learn in seconds."""

import io

import numpy as np
import pyarrow as pa
from PIL import Image

LABELS = ("square", "disc")


def scenes(rows: int, seed: int, size: tuple[int, int] = (96, 128)) -> pa.Table:
    """Bright squares and reddish discs on grey ground; every third picture has a crowd, every fifth is empty."""
    rng = np.random.default_rng(seed)
    height, width = size
    found = []
    for number in range(rows):
        pixels = rng.integers(60, 100, (height, width, 3), dtype=np.uint8)
        boxes = []
        for _ in range(0 if number % 5 == 4 else 3):
            side = int(rng.integers(14, 30))
            x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
            label = LABELS[int(rng.integers(2))]
            down, across = np.mgrid[:side, :side] - (side - 1) / 2
            inside = (down**2 + across**2 <= side**2 / 4) if label == "disc" else np.ones((side, side), bool)
            colour = (200, 60, 60) if label == "disc" else (230, 230, 200)
            pixels[y : y + side, x : x + side][inside] = colour
            boxes.append({"x1": x, "y1": y, "x2": x + side, "y2": y + side, "label": label, "crowd": False})
        if number % 3 == 2:
            boxes.append({"x1": 0, "y1": 0, "x2": 40, "y2": 40, "label": "disc", "crowd": True})
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        place = {"id": f"{seed}-{number}", "height": height, "width": width}
        found.append({**place, "image": file.getvalue(), "boxes": boxes})
    corner = {name: pa.float32() for name in ("x1", "y1", "x2", "y2")}
    box = pa.struct({**corner, "label": pa.string(), "crowd": pa.bool_()})
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("image", pa.binary()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("boxes", pa.list_(box)),
        ]
    )
    return pa.Table.from_pylist(found, schema=schema)
