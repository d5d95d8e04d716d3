"""Pictures as people have them: read right or refused in a sentence, whatever the file holds."""

import struct
import subprocess
import sys
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lepton_platform.data import images
from tests.data.pictures import exif, meadow, noise, saved

RGB = noise(20, 30)
LOSSLESS = {"WEBP": {"lossless": True}}


@pytest.mark.parametrize("kind", images.FORMATS)
def test_each_kind_of_file_gives_its_pixels_and_its_size(kind):
    data = saved(RGB, kind, **LOSSLESS.get(kind, {}))
    found = images.decode(data)
    assert found.shape == (20, 30, 3) and found.dtype == np.uint8 and found.flags.c_contiguous
    assert images.size_of(data) == (30, 20)
    if kind != "JPEG":
        assert (found == RGB).all()


@pytest.mark.parametrize("kind", images.FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_comes_upright_and_its_size_with_it(kind, orientation):
    data = saved(RGB, kind, exif=exif(orientation))
    with Image.open(BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    found = images.decode(data)
    assert (found == expected).all()
    assert images.size_of(data) == (found.shape[1], found.shape[0])
    assert images.orientation_of(data) == orientation


def test_a_broken_exif_block_costs_nothing_but_itself():
    assert (images.decode(saved(RGB, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")) == RGB).all()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(np.array([[0, 255]], np.uint8), mode="1"), [[0, 0, 0], [255, 255, 255]]),
        (saved(np.array([[7, 200]], np.uint8)), [[7, 7, 7], [200, 200, 200]]),
        (saved(np.array([[0x0700, 0xC8FF]], np.uint16)), [[7, 7, 7], [200, 200, 200]]),
        (saved(np.array([[0x0700, 0xC8FF]], np.uint16), "TIFF"), [[7, 7, 7], [200, 200, 200]]),
        (saved(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8), mode="P"), None),
        (saved(np.array([[[9, 8, 7, 255], [1, 2, 3, 0]]], np.uint8)), [[9, 8, 7], [255, 255, 255]]),
        (saved(np.array([[[9, 255], [1, 0]]], np.uint8)), [[9, 9, 9], [255, 255, 255]]),
        (saved(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8), "TIFF", "CMYK"), [[0, 0, 0], [255, 255, 255]]),
        (saved(np.array([[3, 4]], np.uint8), transparency=3), [[255, 255, 255], [4, 4, 4]]),
    ],
    ids=["1 bit", "grey", "16 bit", "16 bit TIFF", "palette", "alpha", "grey alpha", "CMYK", "transparent colour"],
)
def test_every_mode_becomes_rgb(data, expected):
    found = images.decode(data)
    assert found.shape == (1, 2, 3)
    if expected is not None:
        assert found[0].tolist() == expected


PNG, JPEG = saved(meadow(64, 64)), saved(meadow(64, 64), "JPEG")
FRAMES = {"save_all": True, "append_images": [Image.fromarray(RGB[::-1])]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no bytes"),
        (b"GIF89a", "not a picture of a kind that is read"),
        (saved(RGB, "GIF"), "not a picture of a kind that is read"),
        (b"<svg/>" * 50, "not a picture of a kind that is read"),
        (PNG[: len(PNG) // 2], "broken or cut off"),
        (JPEG[: len(JPEG) // 2], "broken or cut off"),
        (PNG[:60] + b"\0" * 40 + PNG[100:], "broken or cut off"),
        (saved(RGB, "TIFF")[:200], "broken or cut off"),
        (saved(RGB, "PNG", **FRAMES), "an animation of 2 pictures"),
        (saved(RGB, "WEBP", **FRAMES), "an animation of 2 pictures"),
        (saved(RGB, "TIFF", **FRAMES), "2 pages"),
        (saved(np.zeros((3, 3), np.float32), "TIFF"), "floating-point"),
        (saved(np.full((3, 3), 70_000, np.int32), "TIFF"), "32-bit"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(data, said):
    with pytest.raises(ValueError, match=said) as refused:
        images.decode(data)
    assert "\n" not in str(refused.value)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is very large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("side", [8_000, 12_000, 100_000, 2**31 - 1])
@pytest.mark.filterwarnings("error")
def test_too_many_pixels_are_refused_from_the_header(side):
    for read in (images.decode, images.size_of):
        with pytest.raises(ValueError, match=r"more pixels|more than the 50,000,000 pixels"):
            read(bomb(side, side))


def test_the_limit_is_the_callers():
    with pytest.raises(ValueError, match="599 pixels that are allowed: 30 by 20"):
        images.decode(saved(RGB), max_pixels=599)
    assert images.decode(saved(RGB), max_pixels=600).shape == (20, 30, 3)


def test_overviews_and_masks_of_a_map_are_no_second_picture():
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    small = ImageFileDirectory_v2()
    small[254] = 1
    image, overview = Image.fromarray(RGB), Image.fromarray(RGB).reduce(2)
    overview.encoderinfo = {"tiffinfo": small}
    file = BytesIO()
    image.save(file, "TIFF", save_all=True, append_images=[overview])
    assert (images.decode(file.getvalue()) == RGB).all()


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=400), st.sampled_from([PNG, JPEG, saved(RGB, "TIFF"), saved(RGB, "WEBP")]), st.integers(0, 300)
)
def test_any_bytes_are_a_picture_or_a_value_error(junk, good, at):
    for data in (junk, good[:at] + junk + good[at + len(junk) :]):
        for read in (images.decode, images.size_of, images.orientation_of, images.as_png):
            try:
                read(data)
            except ValueError as error:
                assert str(error)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.booleans())
def test_a_png_holds_the_pixels_and_cleaning_is_idempotent(height, width, seed, colours):
    array = noise(height, width, seed)
    array = array if colours else array[..., 0]
    once = images.as_png(images.encode_png(array))
    assert images.as_png(once) == once == images.encode_png(array)
    found = images.decode(once)
    assert (found == (array if colours else array[..., None])).all()


def test_only_pictures_are_encoded():
    for array in (RGB.astype(float), RGB[..., :2], RGB[:0]):
        with pytest.raises(ValueError, match="a picture"):
            images.encode_png(array)


def test_grey_keeps_its_values_and_weighs_colours():
    assert (images.grey(np.repeat(RGB[..., :1], 3, axis=2)) == RGB[..., 0]).all()
    assert images.grey(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).tolist() == [[76, 150, 29]]


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    one, other = images.shingles(a), images.shingles(b)
    return len(one & other) / len(one | other)


def test_a_picture_is_like_its_copies_and_unlike_others():
    picture, other = meadow(300, 300, 1), meadow(300, 300, 2)
    half = np.asarray(Image.fromarray(picture).resize((150, 150)))
    darker = (picture * 0.8).astype(np.uint8)
    copies = [images.decode(saved(picture, "JPEG", quality=30)), half, darker]
    assert min(likeness(picture, copy) for copy in copies) > 0.85
    assert likeness(picture, other) < 0.5
    white, black = (np.full((40, 40, 3), level, np.uint8) for level in (255, 0))
    assert images.shingles(white) == {"flat:31"} != images.shingles(black)


def test_bytes_in_json():
    assert images.as_bytes({"$base64": "aGk="}) == images.as_bytes(b"hi") == b"hi"
    for wrong in ("aGk=", {"$base64": "a"}, {"$base64": 3}, {"$base64": "aGk=", "more": 1}, None):
        with pytest.raises(ValueError, match=r"^photo: "):
            images.as_bytes(wrong, "photo")


def test_importing_it_opens_no_library():
    code = "import sys, lepton_platform.data.images; print({'PIL', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
