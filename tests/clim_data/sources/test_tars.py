"""Every byte of a tar is accounted for, whatever its headers say."""

import io
import os
import tarfile

import pytest
from clim_data.faults import BrokenSample
from clim_data.sources.store import SampleStore
from clim_data.sources.tars import Damage, Member, read_tar

PICTURE = 1500


@pytest.fixture
def good(tmp_path, tar):
    """Bytes of a shard of twelve samples, and the place of the sixth."""
    path = tar(tmp_path / "good.tar", members(0, 12))
    with tarfile.open(path) as listing:
        at = next(member.offset for member in listing if member.name == "005.jpg")
    return path.read_bytes(), at


def members(first, count):
    numbers = range(first, first + count)
    return [
        member
        for n in numbers
        for member in ((f"{n:03d}.jpg", bytes([n + 1]) * PICTURE), (f"{n:03d}.txt", b"text"))
    ]


def keys_of(path, **options):
    store = SampleStore(path, **options)
    for i in range(len(store)):
        sample = store.read(i)
        assert sample.image == bytes([int(sample.key) + 1]) * PICTURE
    return [store.read(i).key for i in range(len(store))], store.skipped


def names(*numbers):
    return [f"{n:03d}" for n in numbers]


DAMAGES = {
    "one bit of a name": lambda b, at: b[: at + 3] + bytes([b[at + 3] ^ 1]) + b[at + 4 :],
    "one bit of a size": lambda b, at: b[: at + 134] + bytes([b[at + 134] ^ 1]) + b[at + 135 :],
    "noise": lambda b, at: b[:at] + os.urandom(512) + b[at + 512 :],
    "one empty block": lambda b, at: b[:at] + bytes(512) + b[at + 512 :],
    "two empty blocks": lambda b, at: b[:at] + bytes(1024) + b[at + 1024 :],
    "a hole of a sample": lambda b, at: b[:at] + bytes(3072) + b[at + 3072 :],
    "text": lambda b, at: b[:at] + b"<html>" * 100 + b[at + 600 :],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_lies_behind_a_damaged_header_is_read(tmp_path, good, damage):
    path = tmp_path / "c.tar"
    path.write_bytes(DAMAGES[damage](*good))
    found, skipped = keys_of(path)
    assert found == names(0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11)
    assert "c.tar" in skipped.names["damaged shard"]
    assert f"at byte {good[1]:,}" in skipped.entries["c.tar"][1]
    with pytest.raises(BrokenSample, match=r"c\.tar.*(damaged shard|incomplete sample)"):
        SampleStore(path, on_error="raise")


ENDS = {
    "zero tail": lambda b, at: b[:at] + bytes(len(b) - at),
    "cut in a header": lambda b, at: b[: at + 100],
    "cut between members": lambda b, at: b[:at],
    "cut in the end mark": lambda b, at: b[:at] + bytes(512),
}


@pytest.mark.parametrize("damage", ENDS)
def test_a_lost_end_is_named(tmp_path, good, damage):
    path = tmp_path / "c.tar"
    path.write_bytes(ENDS[damage](*good))
    found, skipped = keys_of(path)
    assert found == names(0, 1, 2, 3, 4)
    assert set(skipped.counts) <= {"damaged shard", "cut shard"}
    assert skipped.total == 1


@pytest.mark.parametrize("empty", [0, 512, 20 * 512, 1 << 20])
def test_joined_tars_are_read_to_the_end(tmp_path, tar, good, empty):
    path = tmp_path / "c.tar"
    second = tar(tmp_path / "b.tar", members(100, 6)).read_bytes()
    path.write_bytes(good[0] + bytes(empty) + second)
    found, skipped = keys_of(path)
    assert found == names(*range(12), *range(100, 106))
    assert skipped.total == (1 if empty else 0)  # more between them than a writer adds is named


def test_junk_behind_the_end_is_named(tmp_path, good):
    path = tmp_path / "c.tar"
    path.write_bytes(good[0] + os.urandom(4096) + bytes(1024))
    found, skipped = keys_of(path)
    assert found == names(*range(12))
    assert "behind the end mark" in skipped.entries["c.tar"][1]


def test_a_whole_tar_has_nothing_to_say(tmp_path, good):
    for mode in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / "w.tar"
        with tarfile.open(path, "w", format=mode) as out:
            for name, data in members(0, 12):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))
        assert not [entry for entry in read_tar(path) if isinstance(entry, Damage)]
        assert keys_of(path)[0] == names(*range(12))


@pytest.mark.parametrize("mode", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_those_of_the_standard_module(tmp_path, mode):
    path = tmp_path / "t.tar"
    long = "folder/" * 20 + "x" * 80 + ".jpg"
    with tarfile.open(path, "w", format=mode) as out:
        for name, kind in [
            ("a/", tarfile.DIRTYPE),
            ("a/b.jpg", tarfile.REGTYPE),
            ("lïnk.jpg", tarfile.SYMTYPE),
            (long, tarfile.REGTYPE),
            ("fifo", tarfile.FIFOTYPE),
            ("日本.txt", tarfile.AREGTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, 700 if kind in tarfile.REGULAR_TYPES else 0
            out.addfile(info, io.BytesIO(bytes(info.size)))
    with tarfile.open(path) as listing:
        expected = [(m.name, m.offset_data, m.size) for m in listing if m.isreg()]
    found = [entry for entry in read_tar(path) if isinstance(entry, Member)]
    assert [(m.name, m.start, m.size) for m in found if not m.kind] == expected
    assert len(found) == 6


def header(name, size, kind=b"0", raw=None):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    if raw is not None:
        block[124:136] = raw
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def block(text):
    return text.ljust(512, b"\0")


HOSTILE = {
    "a negative size": header("z.jpg", 0, raw=b"\xff" + ((1 << 88) - 512).to_bytes(11, "big")),
    "a size of 2**80": header("z.jpg", 0, raw=b"\x80" + (1 << 80).to_bytes(11, "big")),
    "a size of -1 in octal": header("z.jpg", 0, raw=b"-0000000001\0"),
    "a size of letters": header("z.jpg", 0, raw=b"many bytes!\0"),
    "a chain of GNU names": (header("././@LongLink", 512, b"L") + block(b"x" * 511)) * 3000,
    "a chain of pax names": (header("p", 14, b"x") + block(b"14 path=a.jpg\n")) * 3000,
    "a pax size beyond all": header("p", 28, b"x")
    + block(b"28 size=9999999999999999999\n")
    + header("q.jpg", 0),
    "a pax size below 0": header("p", 11, b"x") + block(b"11 size=-5\n") + header("q.jpg", 0),
    "a pax header of 8 GB": header("p", 0, b"x", raw=b"77777777777\0") + header("q.jpg", 0),
    "a pax record of no length": header("p", 9, b"x") + block(b"0 path=a\n") + header("q.jpg", 0),
    "a pax record beyond its end": header("p", 9, b"x")
    + block(b"99 path=a\n")
    + header("q.jpg", 0),
    "sparse maps without end": header("s.jpg", 0, b"S")[:482] + b"\1" + bytes(29),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_headers_neither_loop_nor_hide_the_rest(tmp_path, good, kind):
    path = tmp_path / "h.tar"
    content, at = good
    path.write_bytes(content[:at] + HOSTILE[kind] + content[at:])
    found, skipped = keys_of(path)
    assert found == names(*range(12))
    assert skipped.total >= 1


def test_names_of_other_alphabets_are_names(tmp_path):
    path = tmp_path / "latin.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as out:
        for name, data in (("caf\xe9.jpg", b"1"), ("caf\xe9.txt", b"text")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    store = SampleStore(path)
    assert store.read(0).name == "latin.tar/café"
    store.fingerprint().encode()


def test_compressed_and_empty_files_are_no_tars(tmp_path):
    for name, content in {
        "gz.tar": b"\x1f\x8b" + os.urandom(3000),
        "zeros.tar": bytes(4096),
        "many.tar": bytes(1 << 20),
        "none.tar": b"",
        "page.tar": b"<html>" * 500,
    }.items():
        (tmp_path / name).write_bytes(content)
        store = SampleStore(tmp_path / name)
        assert (len(store), store.skipped.names) == (0, {"not a tar": [name]})


def test_a_link_in_the_place_of_an_image_is_named(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as out:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(link)
    store = SampleStore(tmp_path / "s.tar")
    assert store.skipped.entries == {"s.tar/a": ("incomplete sample", "a.jpg is a link")}
