import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from interp import InterpError
from interp.vision import images
from interp.vision.images import MAX_PIXELS, open_image
from tests import tiny


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixel(source, x=0, y=0):
    return open_image(source)[0].getpixel((x, y))


def halves(left, right, mode):
    """A picture of two colours, 20 x 10."""
    picture = Image.new(mode, (20, 10), right)
    picture.paste(left, (0, 0, 10, 10))
    return picture


@pytest.mark.parametrize(
    ("picture", "expected", "note"),
    [
        (Image.new("RGBA", (4, 4), (200, 0, 0, 0)), (255, 255, 255), "Transparent"),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 128)), (227, 127, 127), "Transparent"),
        (Image.new("RGBA", (4, 4), (200, 10, 20, 255)), (200, 10, 20), None),
        (Image.new("LA", (4, 4), (40, 0)), (255, 255, 255), "Transparent"),
        (Image.new("L", (4, 4), 77), (77, 77, 77), None),
        (Image.new("1", (4, 4), 1), (255, 255, 255), None),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0), None),
        (Image.new("HSV", (4, 4), (0, 255, 255)), (255, 0, 0), None),
        (Image.new("YCbCr", (4, 4), (128, 128, 128)), (128, 128, 128), None),
    ],
    ids=lambda value: getattr(value, "mode", ""),
)
def test_every_mode_becomes_rgb(picture, expected, note):
    opened, notes = open_image(picture)
    assert opened.mode == "RGB"
    assert opened.size == picture.size
    assert np.abs(np.subtract(opened.getpixel((1, 1)), expected)).max() <= 1
    assert [note in text for text in notes] == ([True] if note else [])


def test_palette_with_and_without_transparency():
    palette = halves((250, 0, 0), (0, 0, 250), "RGB").quantize(2)
    assert pixel(encoded(palette, "PNG")) == (250, 0, 0)
    clear = encoded(palette, "PNG", transparency=palette.getpixel((0, 0)))
    assert pixel(clear) == (255, 255, 255)
    assert pixel(clear, 19) == (0, 0, 250)
    assert "Transparent" in open_image(clear)[1][0]


@pytest.mark.parametrize("value", [0, 255, 256, 30000, 65535])
def test_sixteen_bits_are_scaled_and_not_saturated(value):
    picture = Image.fromarray(np.full((4, 6), value, dtype=np.uint16))
    assert picture.mode == "I;16"
    for source in (picture, encoded(picture, "PNG"), encoded(picture, "TIFF")):
        opened, notes = open_image(source)
        assert opened.mode == "RGB"
        assert opened.getpixel((0, 0)) == (round(value / 257),) * 3
        assert "8 bits" in notes[0]


def test_float_pictures_are_scaled_and_broken_ones_refused():
    assert pixel(Image.fromarray(np.full((4, 4), 2.5, dtype=np.float32))) == (255, 255, 255)
    with pytest.raises(InterpError, match="not a number"):
        open_image(Image.fromarray(np.array([[0.5, np.nan]], dtype=np.float32)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_once(orientation):
    picture = halves((250, 0, 0), (0, 0, 250), "RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, "JPEG", exif=exif, quality=95)
    opened, _ = open_image(data)
    assert opened.size == ((20, 10) if orientation < 5 else (10, 20))
    again, _ = open_image(opened)  # as the app does, which hands over what it has opened already
    assert again.size == opened.size
    assert again.tobytes() == opened.tobytes()
    assert opened.getexif().get(0x0112, 1) == 1
    red = {1: (2, 5), 2: (17, 5), 3: (17, 5), 4: (2, 5), 5: (5, 2), 6: (5, 2), 7: (5, 17), 8: (5, 17)}[orientation]
    assert opened.getpixel(red)[0] > 200
    assert pixel(Image.open(io.BytesIO(data)), *red)[0] > 200


@pytest.mark.parametrize("size", [(1, 1), (2000, 10), (10, 2000)])
def test_extreme_sizes_are_kept(size):
    assert open_image(Image.new("RGB", size))[0].size == size


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    opened, notes = open_image(data)
    assert np.abs(np.subtract(opened.getpixel((4, 4)), (255, 0, 0))).max() <= 4
    assert "several frames" in notes[0]
    held = Image.open(io.BytesIO(data))
    held.seek(2)
    assert open_image(held)[0].tobytes() == opened.tobytes()


def test_arrays():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert open_image(grey)[0].size == (4, 3)
    assert pixel(grey, 3, 2) == (11, 11, 11)
    assert pixel(np.full((2, 2, 3), 0.5)) == (128, 128, 128)
    assert pixel(np.full((2, 2, 3), 1.0, dtype=np.float16)) == (255, 255, 255)
    assert pixel(np.zeros((2, 2, 4), dtype=np.uint8)) == (255, 255, 255)
    assert pixel(np.full((4, 4, 3), 9, dtype=np.uint8)[::2, ::2]) == (9, 9, 9)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(5, dtype=np.uint8),
        np.zeros((2, 2, 2), dtype=np.uint8),
        np.zeros((3, 2, 2), dtype=np.uint8),  # channels first
        np.zeros((1, 2, 2, 3), dtype=np.uint8),
        np.full((2, 2), 255.0),
        np.full((2, 2), -0.1),
        np.full((2, 2), np.nan),
        np.zeros((2, 2), dtype=np.int64),
        np.zeros((2, 2), dtype=bool),
        np.zeros((2, 2), dtype=object),
        np.zeros((0, 4, 3), dtype=np.uint8),
        np.zeros((0, 4, 3)),
    ],
    ids=lambda a: f"{a.dtype}-{a.shape}",
)
def test_bad_arrays_are_refused(array):
    with pytest.raises(InterpError):
        open_image(array)


@pytest.mark.parametrize("source", [None, 3, object(), [1, 2], "a\0b", ""], ids=["none", "number", "object", "list", "zero byte", "empty"])
def test_what_is_no_picture_at_all_is_refused(source):
    with pytest.raises(InterpError):
        open_image(source)


def test_broken_files_are_refused(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("this is no picture")
    jpeg = encoded(tiny.noise(200, 200), "JPEG")
    with pytest.raises(InterpError, match="not a picture in a supported format"):
        open_image(text)
    with pytest.raises(InterpError, match="not a picture"):
        open_image(b"")
    with pytest.raises(InterpError, match="damaged"):
        open_image(jpeg[: len(jpeg) // 2])
    with pytest.raises(InterpError, match="There is no picture at"):
        open_image(tmp_path / "missing.png")
    with pytest.raises(InterpError, match="cannot be opened"):
        open_image(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF"])
def test_no_damage_leads_to_anything_but_a_picture_or_our_error(kind):
    rng = np.random.default_rng(0)
    frames = [tiny.noise(32, 32, seed) for seed in (1, 2)]
    several = {"save_all": True, "append_images": frames[1:]} if kind in {"GIF", "WEBP", "TIFF", "PNG"} else {}
    data = encoded(frames[0], kind, **several)
    spoiled = [data[:n] for n in rng.integers(1, len(data), 40)]
    for _ in range(160):
        copy = bytearray(data)
        copy[rng.integers(min(len(data), 300))] = rng.integers(256)  # the header is where a byte matters
        spoiled.append(bytes(copy))
    for sample in spoiled:
        try:
            opened, _ = open_image(sample)
        except InterpError:
            continue
        assert opened.mode == "RGB"


def huge_png(side):
    """A valid small file whose header says that it is huge."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [30_000, 12_000, int(MAX_PIXELS**0.5) + 1])  # far above PIL's own limit, above its warning, below it
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_picture_is_refused_before_it_is_decoded(side, monkeypatch):
    def never(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    with pytest.raises(InterpError, match="50 million"):
        open_image(huge_png(side))


def entry(tag, kind, count, value):
    return struct.pack("<HHLL", tag, kind, count, value)


def directory(entries, following=0):
    return struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<L", following)


def tiff(extra=(), frames=1):
    """A grey TIFF of 2 x 2 pixels: its first directory with `extra` entries, then the others, each pointing to the next."""
    shape = [entry(256, 3, 1, 2), entry(257, 3, 1, 2), entry(258, 3, 1, 8), entry(259, 3, 1, 1), entry(262, 3, 1, 1)]
    shape += [entry(273, 4, 1, 8), entry(277, 3, 1, 1), entry(278, 3, 1, 2), entry(279, 4, 1, 4)]
    first, others = directory([*shape, *extra]), directory(shape)[:-4]
    starts = [12 + len(first) + n * (len(others) + 4) for n in range(frames - 1)] + [0]
    data = b"II*\0" + struct.pack("<L", 12) + bytes([10, 20, 30, 40]) + first[:-4] + struct.pack("<L", starts[0])
    return data + b"".join(others + struct.pack("<L", following) for following in starts[1:])


@pytest.fixture
def directories_read(monkeypatch):
    """The place in the file of every TIFF directory that Pillow reads."""
    read = []
    load = TiffImagePlugin.ImageFileDirectory_v2.load
    monkeypatch.setattr(TiffImagePlugin.ImageFileDirectory_v2, "load", lambda self, file: read.append(file.tell()) or load(self, file))
    return read


def test_one_frame_is_read_of_a_tiff_of_many(directories_read):
    opened, notes = open_image(tiff(frames=20_000))
    assert np.asarray(opened)[..., 0].tolist() == [[10, 20], [30, 40]]
    assert notes == ("The picture has several frames; this is the first.",)
    assert set(directories_read) == {12}
    assert open_image(tiff())[1] == ()


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(tiff([entry(40_000 + n, 7, 60_000, 8) for n in range(5000)]), id="TIFF"),
        pytest.param(tiff([entry(0x8769, 4, 1, 138)]) + directory([entry(n, 7, 50_000, 8) for n in range(5000)]), id="TIFF's EXIF"),
    ],
)
def test_metadata_that_all_points_to_the_same_bytes_is_not_copied(source, directories_read):
    with pytest.raises(InterpError, match=r"metadata claims \d+ MB in a file of 0\.\d MB"):
        open_image(source)
    assert not directories_read


BOMB = b"II*\0\x08\0\0\0" + directory([entry(n, 7, 40_000, 8) for n in range(5000)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_that_all_points_to_the_same_bytes_is_not_copied(kind, directories_read):
    picture, sound = tiny.noise(8, 8), BOMB[:8] + directory([]) + bytes(len(BOMB) - 14)
    if kind == "JPEG":
        data = encoded(picture, kind)
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(BOMB) + 8) + b"Exif\0\0" + BOMB + data[2:]
    elif kind == "AVIF":
        data = encoded(picture, kind, exif=sound).replace(sound, BOMB)
    else:
        data = encoded(picture, kind, exif=BOMB)
    directories_read.clear()
    with pytest.raises(InterpError, match="metadata claims 200 MB"):
        open_image(data)
    assert not directories_read


def test_exif_in_several_segments_is_checked_as_one():
    bomb = b"II*\0\x08\0\0\0" + directory([entry(n, 7, 0 if n < 5500 else 60_000, 8) for n in range(11_000)])
    parts = [bomb[at : at + 65_000] for at in range(0, len(bomb), 65_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts)
    with pytest.raises(InterpError, match="metadata claims"):
        open_image(encoded(tiny.noise(8, 8), "JPEG").replace(b"\xff\xd8", b"\xff\xd8" + segments, 1))


def test_sound_metadata_passes():
    exif = Image.Exif()
    exif[0x010E] = "a description " * 50
    exif.get_ifd(0x8769)[0x9286] = b"a comment"
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF"):
        assert open_image(encoded(tiny.noise(40, 30), kind, exif=exif))[0].size == (40, 30)


def test_a_colour_profile_is_all_that_is_kept_of_the_metadata():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    opened, _ = open_image(encoded(tiny.noise(8, 8), "JPEG", exif=exif, icc_profile=profile, comment=b"mine"))
    assert opened.info == {"icc_profile": profile}


def gif(extension):
    data = encoded(Image.new("P", (4, 4)), "GIF")
    at = data.index(b",", 13)
    return data[:at] + extension + data[at:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gif(b"\x21\xfe" + (b"\xff" + b"a" * 255) * 5000 + b"\0"), "1 MB of comments"),
        (gif(b"\x21\xff" + b"\1a" * 1_000_001 + b"\0"), "1000000 blocks"),
        (encoded(tiny.noise(8, 8), "JPEG")[:-2] + b"\xff\xda\0\2" * 501 + b"\xff\xd9", "scans; the limit is 500"),
        (tiff([entry(322, 4, 1, 30_000), entry(323, 4, 1, 30_000), entry(324, 4, 1, 8), entry(325, 4, 1, 4)]), "tiles have 900 million"),
    ],
    ids=["comments", "blocks", "scans", "tiles"],
)
def test_files_that_would_take_minutes_or_gigabytes(data, message):
    with pytest.raises(InterpError, match=message):
        open_image(data)


def test_gif_comments_and_extensions_of_the_usual_length_pass():
    assert open_image(gif(b"\x21\xfe\x04mine\0"))[0].size == (4, 4)


@pytest.mark.parametrize("chunk", ["iCCP", "zTXt"])
def test_compressed_png_metadata_stays_compressed(chunk):
    """Pillow's own limit, which this package relies on."""
    body = b"name\0\0" + zlib.compress(b"\0" * 30_000_000)
    data = encoded(tiny.noise(8, 8), "PNG")
    with_chunk = (
        data[:33] + struct.pack(">I", len(body)) + chunk.encode() + body + struct.pack(">I", zlib.crc32(chunk.encode() + body)) + data[33:]
    )
    try:
        opened, _ = open_image(with_chunk)
    except InterpError:
        return
    assert sum(map(len, opened.info.values())) < 2_000_000


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "JPEG2000"])
def test_formats_that_are_not_listed_are_refused(kind):
    with pytest.raises(InterpError, match="Use PNG, JPEG, WebP, AVIF, GIF, BMP or TIFF"):
        open_image(encoded(tiny.noise(32, 32), kind))


def test_what_is_not_a_file_or_is_too_large_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InterpError, match="is not a file"):
        open_image(tmp_path / "pipe")
    tiny.noise(8, 8).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_FILE", 100)
    with pytest.raises(InterpError, match="more than 0 MB"):
        open_image(tmp_path / "a.png")


def test_an_opened_picture_is_not_opened_again():
    opened = open_image(encoded(Image.new("RGBA", (4, 4), (200, 0, 0, 0)), "PNG"))
    assert open_image(opened) is opened
    assert "Transparent" in opened.notes[0]
