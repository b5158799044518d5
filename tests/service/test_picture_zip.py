"""Zips from strangers: what is good is unpacked, and everything else is refused in words before it costs anything."""

import io
import struct
import warnings
import zipfile

import pytest

from interp import InterpError
from interp.service import picture_zip
from interp.service.picture_zip import unpack
from tests import tiny

MOST = 5


def png(seed=0, side=8):
    buffer = io.BytesIO()
    tiny.noise(side, side, seed).save(buffer, "PNG")
    return buffer.getvalue()


def packed(file, members, how=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(file, "w", how) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand twice
        for name, data in members:
            made.writestr(name, data)
    return file


@pytest.fixture
def place(tmp_path):
    made = tmp_path / "pictures"
    made.mkdir()
    return made


def unpacked(file, place, told=None):
    return unpack(file, place, MOST, lambda done, count: told.append((done, count)) if told is not None else None)


def test_pictures_are_unpacked_under_their_names_and_the_system_s_files_are_passed_over(tmp_path, place):
    members = [
        ("a.png", png(1)),
        ("sub/b.PNG", png(2)),
        ("sub/", b""),
        ("__MACOSX/._a.png", b"x"),
        (".DS_Store", b"x"),
        ("Thumbs.db", b"x"),
    ]
    told = []
    assert unpacked(packed(tmp_path / "a.zip", members), place, told) == 2
    assert sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()) == ["a.png", "sub/b.PNG"]
    assert (place / "a.png").read_bytes() == png(1)
    assert told == [(0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "holds no pictures"),
        ([("notes.txt", b"x")], "'notes.txt', which is no picture"),
        ([("a.png", b"not a picture")], r"'a.png' in the zip: The file is not a picture"),
        ([("a.png", png()[:60])], "'a.png' in the zip: The picture is damaged"),
        ([("../a.png", png())], "'../a.png', which leads out"),
        ([("/etc/a.png", png())], "'/etc/a.png', which leads out"),
        ([("sub/../../a.png", png())], "leads out"),
        ([("..\\a.png", png())], "leads out"),
        ([("C:\\a.png", png())], "leads out"),
        ([("a.png", png()), ("a.png", png(1))], "'a.png' twice"),
        ([("a.png", png()), ("a.png/b.png", png())], "cannot be unpacked"),
        ([(f"{'a' * 300}.png", png())], "cannot be unpacked"),
        ([(f"{i}.png", png()) for i in range(MOST + 1)], "holds 6 pictures; the limit is 5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(tmp_path, place, members, message):
    with pytest.raises(InterpError, match=message):
        unpacked(packed(tmp_path / "a.zip", members), place)
    assert [path for path in tmp_path.rglob("*.png") if not path.is_relative_to(place)] == []


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, place):
    file = packed(tmp_path / "a.zip", [(f"{i}.bmp", b"\0" * 80_000_000) for i in range(4)])
    assert file.stat().st_size < 1_000_000
    with pytest.raises(InterpError, match="have 320 MB when unpacked; the limit is 300 MB"):
        unpacked(file, place)
    assert not any(place.iterdir())


def test_a_bomb_that_lies_about_its_size_is_not_unpacked_further(tmp_path, place):
    file = packed(tmp_path / "a.zip", [("a.bmp", b"\0" * 10_000_000)])
    data = file.read_bytes()
    file.write_bytes(data.replace(struct.pack("<L", 10_000_000), struct.pack("<L", 100)))
    with pytest.raises(InterpError, match="damaged"):
        unpacked(file, place)
    assert all(path.stat().st_size <= 100 for path in place.iterdir())


def test_very_many_entries_are_counted_before_they_are_read(tmp_path, place, monkeypatch):
    file = packed(tmp_path / "a.zip", [(f"d{i}/", b"") for i in range(20 * MOST + 1)])
    monkeypatch.setattr(picture_zip.zipfile, "ZipFile", lambda *_: pytest.fail("it was read"))
    with pytest.raises(InterpError, match="far too many entries"):
        unpacked(file, place)


def test_a_large_zip_is_refused_by_its_size(tmp_path, place, monkeypatch):
    monkeypatch.setattr(picture_zip, "MAX_ZIP", 100)
    with pytest.raises(InterpError, match="the limit is 0 MB"):
        unpacked(packed(tmp_path / "a.zip", [("a.png", png())]), place)


def test_an_encrypted_zip_is_named(tmp_path, place):
    file = packed(tmp_path / "a.zip", [("a.png", png())])
    data = bytearray(file.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    file.write_bytes(data)
    with pytest.raises(InterpError, match=r"encrypted \('a.png'\), and there is no password"):
        unpacked(file, place)


def test_a_way_of_packing_that_is_unknown_is_named(tmp_path, place):
    file = packed(tmp_path / "a.zip", [("a.png", png())], zipfile.ZIP_STORED)
    data = bytearray(file.read_bytes())
    for signature, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(signature) + method] = 97
    file.write_bytes(data)
    with pytest.raises(InterpError, match="cannot be unpacked"):
        unpacked(file, place)


def test_damage_anywhere_is_told_in_words(tmp_path, place):
    whole = packed(tmp_path / "a.zip", [("a.png", png(side=32)), ("b.png", png(1))]).read_bytes()
    refused = 0
    for at in range(0, len(whole), 7):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            file = tmp_path / "damaged.zip"
            file.write_bytes(damaged)
            fresh = place / f"{at}-{len(damaged)}"
            fresh.mkdir()
            try:
                unpacked(file, fresh)
            except InterpError:
                refused += 1
    assert refused > len(whole) // 7


@pytest.mark.parametrize("file", ["nowhere.zip", ".", None, 7])
def test_what_is_no_file_is_named(file, place):
    with pytest.raises(InterpError, match=r"zip"):
        unpacked(file, place)


def test_stopping_ends_it(tmp_path, place):
    def stop(_done, _count):
        raise InterpError("Stopped.")

    with pytest.raises(InterpError, match=r"^Stopped\.$"):
        unpack(packed(tmp_path / "a.zip", [("a.png", png())]), place, MOST, stop)
