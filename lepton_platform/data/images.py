"""Pictures as bytes and as arrays: the one place where files of people are decoded.

Torch-free and cheap to import: the data rooms, the learners and the service all read it. Pixels come as the file has
them: a colour profile, where there is one, is not applied.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Picture = NDArray[np.uint8]  # (H, W, 3) RGB, or (H, W) grey where it says so

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
MAX_PIXELS = 50_000_000
_ORIENTATION = 0x0112  # EXIF's and TIFF's tag
_SUBFILE = 254  # TIFF's tag; bits 0 and 2: a smaller copy, a mask
_EXTRA_PAGE = 0b101
_MOST_PAGES = 64


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> "Picture":
    """The picture in a JPEG, PNG, TIFF or WebP file as (H, W, 3) uint8 RGB, upright as its EXIF says.

    Transparent parts are shown over white; 16 bits are brought to 8 by their upper half. ``ValueError`` is one
    sentence on why it is no picture: broken, truncated, animated, or of more than ``max_pixels`` (told from the
    header, before anything is decoded).
    """
    import numpy as np

    with _opened(data, max_pixels) as image:
        turn = _turn(image)
        image.load()
        upright = image if turn is None else image.transpose(turn)
        return np.ascontiguousarray(np.asarray(_rgb(upright)))


def size_of(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels of the upright picture, from its header alone. ``ValueError`` as ``decode``'s."""
    from PIL import Image

    turned = {Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE}
    turned |= {Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270}
    with _opened(data, max_pixels) as image:
        width, height = image.size
        return (height, width) if _turn(image) in turned else (width, height)


def encode_png(array: "Picture") -> bytes:
    """A PNG of (H, W) grey or (H, W, 3) RGB uint8: the same bytes for the same pixels, nothing else in it."""
    import numpy as np
    from PIL import Image

    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(f"a picture is (H, W) or (H, W, 3) of uint8, not {array.shape} of {array.dtype}")
    if not array.size:
        raise ValueError("a picture has at least one pixel")
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, "PNG", compress_level=6)
    return file.getvalue()


def as_bytes(value: Any, field: str = "image") -> bytes:
    """The bytes of a file in a line of JSON, ``{"$base64": "…"}``; ``ValueError`` names the field otherwise."""
    if isinstance(value, bytes):
        return value
    text = value.get("$base64") if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(text, str):
        raise ValueError(f'{field}: the bytes of a picture are needed, as {{"$base64": "…"}}')
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"{field}: what stands under $base64 is not base64") from None


def as_png(data: bytes) -> bytes:
    """The file's picture as ``encode_png`` writes it, grey where it has no colours. Idempotent; ``ValueError`` as ``decode``'s."""
    array = decode(data)
    return encode_png(array[..., 0] if is_grey(array) else array)


def grey(array: "Picture") -> "Picture":
    """(H, W) luminance (ITU-R BT.601) of (H, W, 3) RGB; what is grey already keeps its values exactly."""
    import numpy as np

    if array.ndim == 2:
        return array
    weighted = array.astype(np.uint32) @ np.array([19_595, 38_470, 7_471], np.uint32)  # of 65,536
    return ((weighted + 32_768) >> 16).astype(np.uint8)


def is_grey(array: "Picture") -> bool:
    """Are the three channels the same everywhere?"""
    return array.ndim == 2 or bool((array[..., 0] == array[..., 1]).all() and (array[..., 1] == array[..., 2]).all())


def orientation_of(data: bytes) -> int:
    """How the pixels are stored, 1 to 8 as EXIF and TIFF count; 1, upright, where the file does not say."""
    with _opened(data, MAX_PIXELS) as image:
        if image.format != "TIFF":
            return _exif_orientation(image)
        found = image.tag_v2.get(_ORIENTATION, 1)  # pyright: ignore[reportAttributeAccessIssue]
        return found if found in range(1, 9) else 1


def dhash(array: "Picture", side: int = 16, tolerance: int = 8) -> "NDArray[np.int8]":
    """Perceptual hash: how brightness goes on from cell to cell of a ``side`` by ``side`` grid, right and down.

    (2, side, side) of -1, 0, 1 (darker, the same within ``tolerance`` of 255 levels, brighter). The difference hash
    of N. Krawetz (2013), with a third state: flat ground, as behind a drawing, tells pictures apart no more.
    """
    import numpy as np
    from PIL import Image

    small = Image.fromarray(grey(array)).resize((side + 1, side + 1), Image.Resampling.BOX)
    cells = np.asarray(small, dtype=np.int16)
    steps = np.stack([np.diff(cells, axis=1)[:side], np.diff(cells, axis=0)[:, :side]])
    return (np.sign(steps) * (np.abs(steps) > tolerance)).astype(np.int8)


def shingles(array: "Picture") -> set[str]:
    """The set whose overlap with another's says how alike two pictures are: the steps of ``dhash``, each with its place.

    Of a picture without steps, one colour, it is that colour's brightness.
    """
    steps = dhash(array).ravel().tolist()
    found = {_step_name(place, step) for place, step in enumerate(steps) if step}
    return found or {f"flat:{int(grey(array).mean()) // 8}"}


@cache
def _step_name(place: int, step: int) -> str:
    """One string for all pictures: a hundred thousand sets of two hundred would fill the memory."""
    return f"{place}:{step}"


@contextmanager
def _opened(data: bytes, max_pixels: int) -> "Iterator[Image.Image]":
    """The file's picture, not decoded yet; whatever a codec raises inside becomes a ``ValueError``."""
    from PIL import Image

    if not isinstance(data, bytes | bytearray | memoryview):
        raise ValueError(f"a picture is bytes, not {type(data).__name__}")
    if not len(data):
        raise ValueError("the picture has no bytes")
    too_many = f"the picture has more than the {max_pixels:,} pixels that are allowed"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise _Refused(f"{too_many}: {width:,} by {height:,}")
            _check_pages(image)
            yield image
    except _Refused:
        raise
    except Image.UnidentifiedImageError:
        raise ValueError(
            f"not a picture of a kind that is read ({', '.join(FORMATS)}), or its header is broken"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError("the picture has more pixels than a picture has") from None
    except MemoryError:
        raise ValueError("the picture needs more memory than there is") from None
    except Exception as error:  # codecs raise OSError, SyntaxError, struct.error, ValueError, EOFError, KeyError …
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the picture is broken or cut off ({said[:120]})") from None


class _Refused(ValueError):
    """Ours, already a sentence."""


def _check_pages(image: "Image.Image") -> None:
    """One picture a file. Copies of it (a phone's second view, a map's overviews, masks) do not count."""
    pages = getattr(image, "n_frames", 1)
    if pages == 1 or image.format == "MPO":
        return
    if image.format != "TIFF":
        raise _Refused(f"the file is an animation of {pages} pictures; one is needed")
    for page in range(1, min(pages, _MOST_PAGES)):
        image.seek(page)
        if not int(image.tag_v2.get(_SUBFILE, 0)) & _EXTRA_PAGE:  # pyright: ignore[reportAttributeAccessIssue]
            raise _Refused(f"the file has {pages} pages; one is needed")
    image.seek(0)


def _exif_orientation(image: "Image.Image") -> int:
    from PIL import Image

    exif: Any = Image.Exif()
    try:
        exif.load(image.info.get("exif"))
        found = exif.get(_ORIENTATION)
    except Exception:  # a damaged block raises whatever its parser stumbles over; the pixels are not to blame
        return 1
    return found if found in range(1, 9) else 1


def _turn(image: "Image.Image") -> "Image.Transpose | None":
    """What brings the picture upright; TIFF's own orientation is Pillow's care."""
    from PIL import Image

    return {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(1 if image.format == "TIFF" else _exif_orientation(image))


def _rgb(image: "Image.Image") -> "Image.Image":
    """Any of Pillow's modes as RGB."""
    import numpy as np
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits of grey; "I" where the file has it in 32
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise _Refused("the picture has 32-bit values; 8 or 16 bits a channel are read")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise _Refused("the picture holds floating-point numbers; 8 or 16 bits a channel are read")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, (255, 255, 255, 255)), over).convert("RGB")
    return image.convert("RGB")
