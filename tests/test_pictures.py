"Picture files of every kind: right values, or an error that names the file."
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from robustacc.pictures import picture_files, read_folder, read_picture, read_pictures


def smooth(seed: int = 0, size=(40, 30), mode: str = "RGB") -> Image.Image:
    "A smooth random picture."
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def png(values: np.ndarray, *extra: tuple[bytes, bytes]) -> bytes:
    "A PNG with 16 bits a channel, written by hand: (h, w, c), c of 1 to 4."
    h, w, c = values.shape
    def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", w, h, 16, {1: 0, 2: 4, 3: 2, 4: 6}[c], 0, 0, 0)
    middle = b"".join(chunk(*one) for one in extra)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values: np.ndarray, bits: int = 16, white: int = 1, order: str = "<", signed: bool = False) -> bytes:
    "A grey TIFF written by hand; white 0: 0 is white."
    h, w = values.shape
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        data = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1).astype(np.uint8).tobytes()
    else: data = values.astype(f"{order}u{bits // 8}").tobytes()
    tags = [(256, w), (257, h), (258, bits), (259, 1), (262, white), (273, 8), (277, 1), (278, h), (279, len(data)), (339, 2 if signed else 1)]
    kinds = {273: (4, "I"), 279: (4, "I")}
    ifd = struct.pack(order + "H", len(tags))
    for tag, value in tags:
        kind, letter = kinds.get(tag, (3, "H"))
        ifd += struct.pack(order + "HHI", tag, kind, 1) + struct.pack(order + letter, value).ljust(4, b"\0")
    data += b"\0" * (len(data) % 2)
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data)) + data + ifd + b"\0\0\0\0"


@pytest.fixture
def write(tmp_path):
    "Write a picture or bytes under a name."
    def one(name, content, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes): path.write_bytes(content)
        else: content.save(path, **options)
        return path
    return one


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_sixteen_bits(write, channels):
    values = np.random.default_rng(0).integers(0, 65536, (6, 7, channels)).astype(np.uint16)
    got = read_picture(write("a.png", png(values)), background=None)
    colour = values[..., :3] if channels > 2 else np.repeat(values[..., :1], 3, 2)
    assert np.array_equal(got.pixels, (colour >> 8).transpose(2, 0, 1)) and "of 16 (or 12) bits the upper 8 were kept" in got.notes


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("white", [0, 1])
def test_tiff_of_sixteen_bits_in_both_byte_orders_and_with_white_at_zero(write, order, white):
    if (order, white) == (">", 0): pytest.skip("Pillow does not open it")
    values = np.random.default_rng(1).integers(0, 65536, (6, 8)).astype(np.uint16)
    got = read_picture(write("a.tif", tiff(values, white=white, order=order)), channels=1).pixels[0]
    assert np.array_equal(got, (values if white else 65535 - values) >> 8)


def test_tiff_of_twelve_bits(write):
    values = np.random.default_rng(2).integers(0, 4096, (6, 8))
    assert np.array_equal(read_picture(write("a.tif", tiff(values, bits=12)), channels=1).pixels[0], values >> 4)


def test_pgm_of_sixteen_bits(write):
    values = np.random.default_rng(3).integers(0, 65536, (6, 8)).astype(">u2")
    assert np.array_equal(read_picture(write("a.pgm", b"P5 8 6 65535\n" + values.tobytes()), channels=1).pixels[0], values >> 8)


def test_pixels_without_a_white_are_refused(write):
    for name, content in (("float.tif", Image.fromarray(np.random.default_rng(0).random((4, 4), np.float32))),
                          ("long.tif", Image.fromarray(np.arange(16, dtype=np.int32).reshape(4, 4) * 1000)),
                          ("signed.tif", tiff(np.arange(16).reshape(4, 4) * 100, signed=True)),
                          ("dark.png", png(np.arange(16).reshape(4, 4, 1)))):
        with pytest.raises(ValueError, match=rf"{name}: .*must"): read_picture(write(name, content))
    black = read_picture(write("black.png", png(np.zeros((4, 4, 1), int))))
    assert not black.pixels.any()


def test_transparent_colour_of_a_grey_png_of_sixteen_bits(write):
    values = np.full((2, 2, 1), 40_000)
    values[0, 0] = 12_345
    got = read_picture(write("a.png", png(values, (b"tRNS", struct.pack(">H", 12_345)))), channels=1)
    assert got.pixels[0].tolist() == [[255, 156], [156, 156]] and "transparent parts were filled with white" in got.notes


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "webp", "tif", "jpg"])
def test_exif_orientation(write, orientation, ending):
    "All eight, against the definition of the tag: where row 0 and column 0 of the stored pixels are seen."
    stored, exif = np.asarray(smooth(mode="L").resize((16, 8))), Image.Exif()
    exif[0x0112] = orientation
    options = dict(lossless=True) if ending == "webp" else dict(quality=100) if ending == "jpg" else {}
    seen = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.T, 6: stored[::-1].T, 7: stored[::-1, ::-1].T,
            8: stored.T[::-1]}[orientation]
    got = read_picture(write(f"a.{ending}", Image.fromarray(stored), exif=exif, **options), channels=1)
    assert got.pixels[0].shape == seen.shape and abs(got.pixels[0].astype(int) - seen).max() <= (3 if ending == "jpg" else 1 if ending == "webp" else 0)
    assert got.notes.count("turned upright, as EXIF says") == (orientation > 1)
    if ending != "tif":
        flat = read_picture(write(f"a.{ending}", Image.fromarray(stored), exif=exif, **options), channels=1, upright=False)
        assert flat.pixels[0].shape == stored.shape and not flat.notes


def test_broken_exif_is_said_and_costs_nothing(write):
    picture = smooth()
    got = read_picture(write("a.jpg", picture, exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95))
    assert np.array_equal(got.pixels, read_picture(write("b.jpg", picture, quality=95)).pixels)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_modes_become_what_pillow_makes_of_them(write, mode):
    ending = "png" if mode in ("1", "L", "P", "RGB") else "tif"
    picture = smooth(mode=mode)
    got = read_picture(write(f"a.{ending}", picture))
    assert np.array_equal(got.pixels, np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    assert len(got.notes) == (mode in ("CMYK", "YCbCr"))


def test_palette_with_a_transparent_entry(write):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    path = write("a.png", picture, transparency=1)
    assert read_picture(path).pixels[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    assert read_picture(path, background=None).pixels[:, 0].T.tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]


@pytest.mark.parametrize("alpha", [0, 1, 77, 128, 254])
def test_background_shows_through_in_proportion(write, alpha):
    colour, white = np.arange(256), np.full(256, 255)
    picture = Image.fromarray(np.stack([colour, colour, colour, np.full(256, alpha)], -1)[None].astype(np.uint8))
    got = read_picture(write("a.png", picture)).pixels[0, 0].astype(float)
    assert abs(got - (alpha * colour + (255 - alpha) * white) / 255).max() <= 1


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_animations_give_their_first_frame(write, ending):
    frames = [smooth(seed) for seed in range(3)]
    options = dict(save_all=True, append_images=frames[1:]) | (dict(lossless=True) if ending == "webp" else {})
    got = read_picture(write(f"a.{ending}", frames[0], **options))
    alone = read_picture(write(f"b.{ending}", frames[0], **(dict(lossless=True) if ending == "webp" else {})))
    assert got.notes == ("the first of several frames",) and not alone.notes
    assert np.array_equal(got.pixels, alone.pixels)


@pytest.mark.parametrize("ending, options", [("png", {}), ("jpg", {}), ("bmp", {}), ("gif", {}), ("webp", {}), ("tif", {}), ("tif", dict(compression="tiff_lzw")),
                                             ("ppm", {}), ("tga", {}), ("jp2", {})])
@pytest.mark.parametrize("share", [0, .02, .3, .5, .9])
def test_truncated_files_are_named(write, ending, options, share):
    whole = write(f"a.{ending}", smooth(), **options).read_bytes()
    with pytest.raises(ValueError, match=rf"cut\.{ending} "): read_picture(write(f"cut.{ending}", whole[:int(share * len(whole))]))


def test_bytes_at_random_give_a_picture_or_a_named_error(write):
    rng = np.random.default_rng(0)
    for ending in ("png", "jpg", "bmp", "gif", "webp", "tif", "ppm", "tga", "jp2"):
        whole = np.frombuffer(write(f"a.{ending}", smooth(size=(20, 12))).read_bytes(), np.uint8)
        for _ in range(60):
            hurt = whole.copy()
            hurt[rng.integers(0, len(hurt), rng.integers(1, 6))] = rng.integers(0, 256)
            path = write(f"hurt.{ending}", hurt.tobytes())
            try: assert read_picture(path).pixels.dtype == np.uint8
            except ValueError as error: assert f"hurt.{ending}" in str(error)


def test_decompression_bombs(write, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ValueError, match="a.png is too large for a picture"): read_picture(write("a.png", smooth()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(ValueError, match="thin.png is too large"): read_picture(write("thin.png", Image.new("RGB", (2000, 1))), size=64)


def test_programs_are_not_pictures(write):
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"
    with pytest.raises(ValueError, match="a.png is truncated or corrupted, or no picture"): read_picture(write("a.png", eps))


def test_files_that_cannot_be_opened_stay_oserrors(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.png"): read_picture(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError): read_picture(tmp_path)


@pytest.mark.parametrize("size, shape", [(72, (100, 333)), (72, (333, 100)), (64, (64, 90)), (20, (7, 9)), (1, (5, 5))])
def test_size_is_torchvisions(write, size, shape):
    from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize
    picture = smooth(size=shape)
    path = write("a.png", picture)
    assert np.array_equal(read_picture(path, size=size).pixels, Compose([Resize(size), PILToTensor()])(picture).numpy())
    for name in "ab": write(f"zoo/{name}/1.png", picture)
    square = Compose([Resize(size), CenterCrop(size), PILToTensor()])(picture).numpy()
    assert np.array_equal(read_folder(path.parent / "zoo", size=size).images, np.stack([square] * 2))


def test_folders_are_read_as_torchvision_reads_them(write, tmp_path):
    from torchvision.datasets import ImageFolder
    for i, name in enumerate(("b/2.png", "b/10.PNG", "a/sub/z.png", "a/y.jpg", "a/sub/deep/x.bmp", "C/1.webp")): write(f"zoo/{name}", smooth(i))
    ours, theirs = read_folder(tmp_path / "zoo"), ImageFolder(tmp_path / "zoo")
    assert list(ours.classes) == theirs.classes and ours.labels.tolist() == theirs.targets
    assert [str(tmp_path / "zoo" / file) for file in ours.files] == [path for path, _ in theirs.samples]
    for image, (picture, _) in zip(ours.images, theirs): assert np.array_equal(image, np.asarray(picture).transpose(2, 0, 1))


def test_folders_with_links_that_lead_back(write, tmp_path):
    write("zoo/a/1.png", smooth())
    (tmp_path / "zoo/a/again").symlink_to(tmp_path / "zoo/a", target_is_directory=True)
    (tmp_path / "zoo/a/up").symlink_to(tmp_path / "zoo", target_is_directory=True)
    assert picture_files(tmp_path / "zoo") == ["a/1.png"]


def test_folders_that_are_wrong(write, tmp_path):
    path = write("zoo/a/1.png", smooth())
    with pytest.raises(ValueError, match=r"has 1 sub-folders \(a\)"): read_folder(tmp_path / "zoo")
    (tmp_path / "zoo/b").mkdir()
    with pytest.raises(ValueError, match="zoo/b: it must have at least one picture"): read_folder(tmp_path / "zoo")
    write("zoo/b/broken.png", path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="zoo/b/broken.png is truncated"): read_folder(tmp_path / "zoo")
    for wrong in (tmp_path / "none", path):
        with pytest.raises(ValueError, match="it must be a folder"): read_folder(wrong)


def test_many_pictures_come_in_their_order(write):
    paths = [write(f"{i}.png", smooth(i, size=(20, 12))) for i in range(300)]
    got = [picture.pixels for picture in read_pictures(paths)]
    assert len(got) == 300 and all(np.array_equal(one, read_picture(path).pixels) for one, path in zip(got, paths))
