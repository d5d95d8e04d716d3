"""Real files of pictures, made by Pillow: every kind that people send, and what is wrong with some."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

COLUMN = 6  # of ten: where ``bright`` is bright


def bright(width: int = 56, height: int = 56, column: int = COLUMN) -> np.ndarray:
    """(H, W, 3): black, and white in one tenth of the columns."""
    found = np.zeros((height, width, 3), np.uint8)
    found[:, width * column // 10 : width * (column + 1) // 10] = 255
    return found


def file(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(kind: str = "JPEG", orientation: int = 6) -> bytes:
    """``bright`` lying on its side, and an EXIF block that says so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(bright()).transpose(Image.Transpose.ROTATE_90)  # orientation 6: a viewer turns it back
    return file(image, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


def _transparent() -> Image.Image:
    """Over white: black where it is opaque, so that what is bright is what can be seen through."""
    alpha = Image.fromarray(255 - bright()[..., 0])
    return Image.merge("RGBA", [*Image.new("RGB", (56, 56)).split(), alpha])


def good() -> dict[str, bytes]:
    """Files that show ``bright``; names say what is odd about them."""
    colour, grey = Image.fromarray(bright()), Image.fromarray(bright()[..., 0])
    sixteen = Image.fromarray(bright()[..., 0].astype(np.uint16) * 257)
    return {
        "png": file(colour),
        "png grey": file(grey),
        "png of 1 bit": file(grey.convert("1")),
        "png palette": file(colour.convert("P")),
        "png of 16 bits": file(sixteen),
        "png with alpha": file(_transparent()),
        "png grey with alpha": file(_transparent().convert("LA")),
        "png interlaced by name alone": file(colour, optimize=True),
        "jpeg": file(colour, "JPEG", quality=95),
        "jpeg grey": file(grey, "JPEG", quality=95),
        "jpeg progressive": file(colour, "JPEG", quality=95, progressive=True),
        "jpeg cmyk": file(colour.convert("CMYK"), "JPEG", quality=95),
        "jpeg turned by exif": turned("JPEG"),
        "png turned by exif": turned("PNG"),
        "webp turned by exif": turned("WEBP"),
        "tiff": file(colour, "TIFF"),
        "tiff lzw": file(colour, "TIFF", compression="tiff_lzw"),
        "tiff of 16 bits": file(sixteen, "TIFF"),
        "tiff of 1 bit": file(grey.convert("1"), "TIFF", compression="group4"),
        "tiff cmyk": file(colour.convert("CMYK"), "TIFF"),
        "webp": file(colour, "WEBP", quality=95),
        "webp lossless": file(colour, "WEBP", lossless=True),
        "webp with alpha": file(_transparent(), "WEBP", lossless=True),
    }


def bad() -> dict[str, bytes]:
    """Files that no picture can be made of, or not one."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue")]
    png, jpeg, tiff, webp = (file(noise(), kind) for kind in ("PNG", "JPEG", "TIFF", "WEBP"))
    return {
        "text": b"I am a picture, said the text file.",
        "pdf": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
        "gif": file(Image.fromarray(bright()).convert("P"), "GIF"),
        "bmp": file(bright(), "BMP"),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
        "zeros": bytes(5_000),
        "png cut off": png[: len(png) // 2],
        "jpeg cut off": jpeg[: len(jpeg) // 2],
        "tiff cut off": tiff[: len(tiff) // 2],
        "webp cut off": webp[: len(webp) // 2],
        "png magic alone": png[:8],
        "png without pixels": png[:33] + chunk(b"IEND", b""),
        "animated png": file(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "animated webp": file(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "tiff of three pages": file(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "tiff of numbers": file(Image.fromarray(np.linspace(0, 1, 900, dtype=np.float32).reshape(30, 30)), "TIFF"),
    }


def noise(width: int = 64, height: int = 48, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    """One of PNG's."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, lines: int | None = None) -> bytes:
    """A grey PNG of zeros that is tiny for what it says that it holds; ``lines``: how many there really are."""
    packed = zlib.compressobj(9)
    line, data = bytes(1 + width), b""
    for _ in range(height if lines is None else lines):
        data += packed.compress(line)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", data + packed.flush())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
