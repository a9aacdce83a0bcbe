"Data sets on generated files: right, missing, short, and damaged."
import gzip
import hashlib
import json
import os
import pickle
import socket
import stat
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from robustacc import data as rd
from robustacc import _downloads as downloads, imagenet
from robustacc.augmentation import Augment
from robustacc.data import Data, batches, load
from robustacc.imagenet import _SUPERCLASSES

REAL = os.environ.get("ROBUSTACC_DATA", "")


@pytest.fixture
def offline(monkeypatch):
    "No name can be resolved and no connection made."
    def refuse(*args, **kwargs): raise socket.gaierror(-2, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        for variable in (name, name.upper()): monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    "Nothing in the user's own cache folder is read or written."
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def md5(path: Path) -> str: return hashlib.md5(path.read_bytes()).hexdigest()


def tree(root: Path) -> list[str]: return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# MNIST

def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    rng, raw, arrays = np.random.default_rng(0), tmp_path / "MNIST/raw", []
    raw.mkdir(parents=True)
    for part, n in (("train", 30), ("t10k", 10)):
        arrays += [rng.integers(0, 256, (n, 28, 28), np.uint8), np.arange(n).astype(np.uint8) % 10]
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays[-2:]):
            (raw / f"{part}-{kind}-ubyte").write_bytes(idx(array))
    monkeypatch.setattr(rd, "_MNIST_MD5", {name: md5(raw / name) for name in rd._MNIST_MD5})
    return tmp_path, arrays


def test_mnist(mnist, offline):
    root, arrays = mnist
    data = load("mnist", root=root)
    assert (data.eps, data.augment, data.in_shape, data.n_classes, data.split) == (.1, None, (1, 28, 28), 10, "published")
    for got, want in zip((data.train.images[:, 0], data.train.labels, data.test.images[:, 0], data.test.labels), arrays):
        assert np.array_equal(got, want)
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int64


@pytest.mark.parametrize("damage", [lambda content: content[:-5], lambda content: b"",
                                    lambda content: content[:15] + bytes([content[15] ^ 1]) + content[16:]])
@pytest.mark.parametrize("file", list(rd._MNIST_MD5))
def test_mnist_damaged(mnist, offline, file, damage):
    path = mnist[0] / "MNIST/raw" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{file} is truncated or corrupted"): load("mnist", root=mnist[0])


def test_mnist_archives_are_unpacked_without_a_network(mnist, offline, monkeypatch):
    from torchvision.datasets import MNIST
    root, raw = mnist[0], mnist[0] / "MNIST/raw"
    for file in rd._MNIST_MD5:
        (raw / f"{file}.gz").write_bytes(gzip.compress((raw / file).read_bytes()))
        (raw / file).unlink()
    monkeypatch.setattr(MNIST, "resources", [(f"{file}.gz", md5(raw / f"{file}.gz")) for file in rd._MNIST_MD5])
    assert np.array_equal(load("mnist", root=root).train.images[:, 0], mnist[1][0])
    assert len(tree(raw)) == 8 and not any(path.is_symlink() for path in raw.iterdir())


def test_mnist_short_archive(mnist, offline, monkeypatch):
    "An archive with a wrong checksum is not unpacked, and is left as it was."
    raw, file = mnist[0] / "MNIST/raw", "train-images-idx3-ubyte"
    short = gzip.compress((raw / file).read_bytes())[:-100]
    (raw / f"{file}.gz").write_bytes(short)
    (raw / file).unlink()
    before = tree(mnist[0])
    with pytest.raises(FileNotFoundError, match=file): load("mnist", root=mnist[0])
    assert tree(mnist[0]) == before and (raw / f"{file}.gz").read_bytes() == short


# SVHN

@pytest.fixture
def svhn(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN
    rng, split_list, arrays = np.random.default_rng(1), dict(SVHN.split_list), []
    for part, n in (("train", 40), ("test", 20)):
        images, labels = rng.integers(0, 256, (n, 3, 32, 32), np.uint8), np.arange(n) % 10 + 1  # 1 .. 10, where 10 is the digit 0
        path = tmp_path / f"{part}_32x32.mat"
        savemat(path, dict(X=images.transpose(2, 3, 1, 0), y=labels[:, None].astype(np.uint8)), do_compression=True)
        split_list[part] = [SVHN.split_list[part][0], path.name, md5(path)]
        arrays += [images, labels % 10]
    monkeypatch.setattr(SVHN, "split_list", split_list)
    return tmp_path, arrays


def test_svhn(svhn, offline):
    data = load("svhn", root=svhn[0])
    assert (data.eps, data.augment, data.in_shape, data.n_classes) == (.031, None, (3, 32, 32), 10)
    for got, want in zip((data.train.images, data.train.labels, data.test.images, data.test.labels), svhn[1]):
        assert np.array_equal(got, want)
    assert data.train.images.flags.c_contiguous


@pytest.mark.parametrize("file", ["train_32x32.mat", "test_32x32.mat"])
def test_svhn_truncated(svhn, offline, file):
    path = svhn[0] / file
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=f"{file} is truncated or corrupted"): load("svhn", root=svhn[0])


# CIFAR-10

class Trap:
    def __reduce__(self): return os.mkdir, ("trapped",)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10
    rng, folder, arrays, lists = np.random.default_rng(2), tmp_path / CIFAR10.base_folder, [], []
    folder.mkdir()
    def write(file, content):
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
        return [file, md5(folder / file)]
    for part in (CIFAR10.train_list, CIFAR10.test_list):
        images, labels = rng.integers(0, 256, (10 * len(part), 3, 32, 32), np.uint8), np.tile(np.arange(10), len(part))
        rows = [slice(10 * k, 10 * k + 10) for k in range(len(part))]
        lists.append([write(file, dict(data=images[some].reshape(10, -1), labels=labels[some].tolist()))
                      for some, (file, _) in zip(rows, part)])
        arrays += [images, labels]
    file, digest = write("batches.meta", dict(label_names=[f"kind {k}" for k in range(10)]))
    monkeypatch.setattr(CIFAR10, "train_list", lists[0])
    monkeypatch.setattr(CIFAR10, "test_list", lists[1])
    monkeypatch.setattr(CIFAR10, "meta", dict(CIFAR10.meta, md5=digest))
    return folder, arrays


def test_cifar10(cifar10, offline):
    data = load("cifar10", root=cifar10[0].parent)
    assert (data.eps, data.augment, data.in_shape, data.classes[3]) == (.031, Augment(4, 32, True), (3, 32, 32), "kind 3")
    for got, want in zip((data.train.images, data.train.labels, data.test.images, data.test.labels), cifar10[1]):
        assert np.array_equal(got, want)


@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_cifar10_truncated(cifar10, offline, file):
    path = cifar10[0] / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{file} is truncated or corrupted"): load("cifar10", root=cifar10[0].parent)


def test_cifar10_pickle_runs_no_program(cifar10, offline, monkeypatch, tmp_path):
    from torchvision.datasets import CIFAR10
    monkeypatch.chdir(tmp_path)
    path = cifar10[0] / "test_batch"
    path.write_bytes(pickle.dumps(dict(data=Trap(), labels=[])))
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(path)]])
    with pytest.raises(pickle.UnpicklingError, match="mkdir does not belong"): load("cifar10", root=cifar10[0].parent)
    assert not Path("trapped").exists()


# nothing there

@pytest.mark.parametrize("name, file", [("mnist", "train-images-idx3-ubyte"), ("svhn", "train_32x32.mat"),
                                        ("cifar10", "data_batch_1")])
@pytest.mark.parametrize("download", [True, False])
def test_offline_and_absent(tmp_path, offline, name, file, download):
    root = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError) as caught: load(name, root=root, download=download)
    message = str(caught.value)
    assert all(part in message for part in (name, file, str(root), "ROBUSTACC_DATA", "python -c")), message
    assert ("download failed" in message) == download
    assert tree(tmp_path) == []  # not even the folder
    assert socket.getdefaulttimeout() is None


def test_unfinished_download_leaves_nothing(tmp_path, monkeypatch):
    from torchvision.datasets import SVHN
    def fail(self):
        (Path(self.root) / "train_32x32.mat").write_bytes(b"half of it")
        raise OSError("No space left on device")
    monkeypatch.setattr(SVHN, "download", fail)
    with pytest.raises(FileNotFoundError, match="No space left"): load("svhn", root=tmp_path)
    assert tree(tmp_path) == []


def test_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    from torchvision.datasets import SVHN
    def interrupt(self): raise KeyboardInterrupt
    monkeypatch.setattr(SVHN, "download", interrupt)
    with pytest.raises(KeyboardInterrupt): load("svhn", root=tmp_path / "new")
    assert tree(tmp_path) == []


def test_root_comes_from_argument_environment_or_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTACC_DATA", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (downloads.data_root("here"), downloads.data_root()) == (Path("here"), Path("/somewhere"))
    monkeypatch.delenv("ROBUSTACC_DATA")
    assert downloads.data_root() == tmp_path / "robustacc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert downloads.data_root() == Path.home() / ".cache/robustacc"


def test_no_home_and_an_unknown_user(tmp_path, monkeypatch):
    "Digits load; other sets say which variable to set; with the variable they are looked for there."
    import pwd
    def unknown(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for variable in ("HOME", "XDG_CACHE_HOME", "ROBUSTACC_DATA"): monkeypatch.delenv(variable, raising=False)
    assert len(load("digits").train) == 1437
    for name in ("mnist", "svhn", "cifar10", "resimagenet"):
        with pytest.raises(FileNotFoundError, match="no home folder.*ROBUSTACC_DATA"): load(name, download=False)
    with pytest.raises(FileNotFoundError, match=f"not found in {tmp_path}"): load("mnist", root=tmp_path, download=False)
    monkeypatch.setenv("ROBUSTACC_DATA", "~/data")
    with pytest.raises(FileNotFoundError, match="~/data: there is no such home folder"): load("mnist", download=False)
    restricted(tmp_path / "imagenet", 3)  # with pictures of its own beside which the cache can be written
    assert len(load("resimagenet", root=tmp_path).train) == 18


def test_cache_that_cannot_be_written(tmp_path, offline):
    "A file where the folder should be: the error names the set, the files and the reason."
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(FileNotFoundError, match="cifar10: .*data_batch_1.*download failed"): load("cifar10", root=tmp_path / "blocked" / "cache")
    assert tree(tmp_path) == ["blocked"]


def test_killed_download_is_begun_again(tmp_path):
    "A process killed in the middle of a download leaves a folder, which the next one removes; what it fetches is complete."
    import signal
    def fetch(folder, die):
        (folder / "a").write_text("whole")
        if die:
            (folder / "b").write_text("ha")
            os.kill(os.getpid(), signal.SIGKILL)
        assert sorted(path.name for path in folder.iterdir()) == ["a"]
        (folder / "b").write_text("whole")
    child = os.fork()
    if not child:
        try: downloads.fetch_files("toy", tmp_path, ["a", "b"], True, lambda folder: fetch(folder, True))
        finally: os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert ".download-toy/b" in tree(tmp_path) and not (tmp_path / "a").exists()
    downloads.fetch_files("toy", tmp_path, ["a", "b"], True, lambda folder: fetch(folder, False))
    assert tree(tmp_path) == ["a", "b"] and (tmp_path / "b").read_text() == "whole"


def test_two_downloads_at_once_fetch_once(tmp_path):
    "The second process waits for the first, and finds the files in place."
    import threading
    begun, go, fetched = threading.Event(), threading.Event(), []
    def slow(folder):
        fetched.append("slow")
        begun.set()
        assert go.wait(20)
        (folder / "a").write_text("slow")
    def other(folder): fetched.append("other")
    first = threading.Thread(target=downloads.fetch_files, args=("toy", tmp_path, ["a"], True, slow))
    second = threading.Thread(target=downloads.fetch_files, args=("toy", tmp_path, ["a"], True, other))
    first.start()
    assert begun.wait(20)
    second.start()
    go.set()
    for thread in (first, second): thread.join(30)
    assert fetched == ["slow"] and tree(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "slow"


def test_data_of_ones_own_by_module_and_name(tmp_path, monkeypatch):
    (tmp_path / "my_sets.py").write_text("""import numpy as np
from robustacc.data import Data, load
x = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), np.uint8)
def squares(): return Data.from_arrays(x, [0, 1] * 3, x, [0, 1] * 3, eps=.1, name="squares")
ready = squares()
borrowed = load("digits")
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load("my_sets:squares").summary() == load("my_sets:ready").summary()
    with pytest.raises(ValueError, match="'my_sets:borrowed' has the name 'digits'"): load("my_sets:borrowed")
    for wrong in ("my_sets:none", "my_sets:", ":squares", "none:squares", "my_sets:x"):
        with pytest.raises(ValueError, match=f"data set '{wrong}'"): load(wrong)
    for wrong in (None, 3, ["mnist"], "", "MNIST"):
        with pytest.raises(ValueError, match="unknown data set"): load(wrong)


# Restricted ImageNet

def picture(path: Path, rng, mode: str = "RGB") -> None:
    "A smooth random picture of random shape, as JPEG."
    from PIL import Image
    size = tuple(int(side) for side in rng.integers(60, 260, 2))
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize(size, Image.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.convert(mode).save(path, quality=90)


def reference(path: Path) -> np.ndarray:
    "torchvision's own pipeline."
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize
    return Compose([Resize(72), CenterCrop(64), PILToTensor()])(Image.open(path).convert("RGB")).numpy()


def files(root: Path, part: str) -> list[str]:
    [cache] = root.glob("resimagenet-72-*")
    return (cache / part / "files.txt").read_text().split()


@pytest.fixture
def wnids(tmp_path):
    "An ImageNet folder: a thousand invented wnids, with pictures in two classes of each range and two that belong nowhere."
    rng, root = np.random.default_rng(3), tmp_path / "data"
    for part, n in (("train", 2), ("val", 1)):
        for number in range(1000): (root / "imagenet" / part / f"n{10 * number:08d}").mkdir(parents=True)
        for number in [end for ends in _SUPERCLASSES.values() for end in ends] + [0, 999]:
            folder = root / f"imagenet/{part}/n{10 * number:08d}"
            for k in range(n): picture(folder / f"{part}_{number}_{k}.JPEG", rng, "L" if number == 30 else "RGB")
    return root


def test_resimagenet_from_wnids(wnids, offline):
    data = load("resimagenet", root=wnids)
    assert (data.eps, data.augment, data.in_shape, data.n_classes) == (.005, Augment(8, 64), (3, 64, 64), 9)
    assert data.split == "published"
    assert data.classes == ("dog", "cat", "frog", "turtle", "bird", "primate", "fish", "crab", "insect")
    assert (len(data.train), len(data.test)) == (36, 18)
    ranges = list(_SUPERCLASSES.values())
    for part, split in (("train", data.train), ("test", data.test)):
        assert isinstance(split.images, np.memmap)
        for i, file in enumerate(files(wnids, part)):
            number = int(file.split("_")[1])
            low, high = ranges[split.labels[i]]
            assert low <= number <= high
            assert np.array_equal(split.images[i], reference(wnids / "imagenet" / file))


def test_resimagenet_random_crops(wnids, offline):
    from PIL import Image
    from torchvision.transforms.functional import resize
    data, seen = load("resimagenet", root=wnids), set()
    names = files(wnids, "train")
    _, draws = rd._draws(len(data.train), 5, 2)
    for batch in batches(data.train, 7, seed=5, epoch=2, augment=data.augment):
        assert batch.images.dtype == torch.float32 and batch.images.shape[1:] == (3, 64, 64)
        for image, label, i in zip(*batch):
            whole = np.asarray(resize(Image.open(wnids / "imagenet" / names[i]).convert("RGB"), 72)).transpose(2, 0, 1)
            assert min(whole.shape[1:]) == 72
            padded = np.pad(whole, ((0, 0), (8, 8), (8, 8)))
            top, left = (int(draws[i, axis] * (padded.shape[1 + axis] - 63)) for axis in (0, 1))
            assert np.array_equal((image * 255).round().byte().numpy(), padded[:, top:top + 64, left:left + 64])
            assert label == data.train.labels[i]
            seen.add(int(i))
    assert seen == set(range(36))
    plain = next(batches(data.train, 5))
    assert np.array_equal((plain.images * 255).round().byte().numpy(), data.train.images[:5])
    part = data.take(train=9).train
    assert len(part.ragged) == 9 and np.array_equal(part.ragged[8], data.train.ragged[8])


def test_resimagenet_builds_once_and_checks_its_cache(wnids, offline, monkeypatch):
    first = load("resimagenet", root=wnids).summary()
    monkeypatch.setattr(imagenet, "read_pictures", lambda *a, **k: pytest.fail("decoded again"))
    assert load("resimagenet", root=wnids).summary() == first
    [cache] = wnids.glob("resimagenet-72-*")
    assert tree(wnids)[:2] == sorted(["imagenet", "imagenet/train"]) and not list(wnids.glob(".*"))
    assert stat.S_IMODE(cache.stat().st_mode) == 0o755
    noted = json.loads((cache / "meta.json").read_text())["bytes"]
    assert set(noted) == {str(path.relative_to(cache)) for path in cache.glob("*/*")}
    for file in ("train/pixels.bin", "test/crops.npy"):
        content = (cache / file).read_bytes()
        (cache / file).write_bytes(content[:-10])
        with pytest.raises(ValueError, match=f"{file} is truncated"): load("resimagenet", root=wnids)
        (cache / file).write_bytes(content)


@pytest.mark.parametrize("file, content", [("meta.json", b"{"), ("meta.json", b"[]"), ("train/labels.npy", None), ("test/crops.npy", None)])
def test_resimagenet_damaged_cache_is_named(wnids, offline, file, content):
    "Also where the size is right: a header or a list that can't be read."
    load("resimagenet", root=wnids)
    [cache] = wnids.glob("resimagenet-72-*")
    whole = (cache / file).read_bytes()
    (cache / file).write_bytes(whole[:8] + b"#" * 40 + whole[48:] if content is None else content)
    with pytest.raises(ValueError, match=f"{file} is truncated, missing or corrupted.*delete {cache} and"): load("resimagenet", root=wnids)


def test_resimagenet_killed_build_is_begun_again(tmp_path, offline):
    restricted(tmp_path / "imagenet", 3)
    name = imagenet._cache_name(*imagenet._find(tmp_path)[:2])
    (tmp_path / f".{name}/train").mkdir(parents=True)
    (tmp_path / f".{name}/train/pixels.bin").write_bytes(b"half of it")
    assert len(load("resimagenet", root=tmp_path).train) == 18
    assert [path.name for path in tmp_path.iterdir() if path.name != "imagenet"] == [name]


def test_resimagenet_new_pictures_new_cache(wnids, offline):
    load("resimagenet", root=wnids)
    picture(wnids / "imagenet/train/n00001510/another.jpg", np.random.default_rng(9))
    assert len(load("resimagenet", root=wnids).train) == 37
    assert len(list(wnids.glob("resimagenet-72-*"))) == 2


@pytest.mark.parametrize("damage", [lambda content: content[:len(content) // 2], lambda content: b"not a picture",
                                    lambda content: b""])
def test_resimagenet_damaged_picture(wnids, offline, damage):
    path = wnids / "imagenet/val/n00002810/val_281_0.JPEG"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="val_281_0.JPEG is truncated or corrupted"): load("resimagenet", root=wnids)
    assert not list(wnids.glob("*resimagenet*")) and not list(wnids.glob(".*"))


def restricted(folder: Path, n: int, seed: int = 4) -> None:
    rng = np.random.default_rng(seed)
    for name in _SUPERCLASSES:
        for k in range(n): picture(folder / name / f"{name}{k}.png", rng)


def test_resimagenet_from_superclasses(tmp_path, offline):
    for part, n in (("train", 3), ("val", 2)): restricted(tmp_path / "restricted-imagenet" / part, n)
    data = load("resimagenet", root=tmp_path)
    assert (len(data.train), len(data.test), data.split) == (27, 18, "published")
    for part, split in (("train", data.train), ("test", data.test)):
        assert [Path(file).parent.name for file in files(tmp_path, part)] == [data.classes[label] for label in split.labels]


def test_resimagenet_undivided(tmp_path, offline):
    restricted(tmp_path / "flat", 8)
    data = load("resimagenet", root=tmp_path / "flat")
    assert (len(data.train), len(data.test)) == (54, 18) and "every fifth" in data.split == data.summary()["split"]
    assert np.bincount(data.test.labels).tolist() == [2] * 9
    assert not set(files(tmp_path, "train")) & set(files(tmp_path, "test"))


def test_resimagenet_only_the_203_wnids(tmp_path, offline):
    rng, numbers = np.random.default_rng(5), [n for low, high in _SUPERCLASSES.values() for n in (low, high)]
    known = dict(zip(sorted(n for low, high in _SUPERCLASSES.values() for n in range(low, high + 1)), imagenet._WNIDS))
    for part in ("train", "val"):
        for number in numbers: picture(tmp_path / part / f"n{known[number]}" / f"{number}.jpg", rng)
    data = load("resimagenet", root=tmp_path)
    assert np.bincount(data.train.labels).tolist() == np.bincount(data.test.labels).tolist() == [2] * 9


def test_resimagenet_class_without_pictures(tmp_path, offline):
    for part in ("train", "val"): restricted(tmp_path / part, 1)
    next((tmp_path / "val/crab").iterdir()).unlink()
    with pytest.raises(ValueError, match="no picture of crab for testing"): load("resimagenet", root=tmp_path)


def test_resimagenet_unsorted_validation_pictures(tmp_path, offline):
    restricted(tmp_path / "imagenet/train", 1)
    (tmp_path / "imagenet/val").mkdir()
    picture(tmp_path / "imagenet/val/ILSVRC2012_val_00000001.JPEG", np.random.default_rng(0))
    with pytest.raises(ValueError, match="no picture of dog, cat"): load("resimagenet", root=tmp_path)


def test_resimagenet_absent(tmp_path, offline):
    with pytest.raises(FileNotFoundError) as caught: load("resimagenet", root=tmp_path)
    assert all(part in str(caught.value) for part in ("ROBUSTACC_DATA", str(tmp_path), "python -c", "val"))
    assert tree(tmp_path) == []


def test_resimagenet_read_only_folder(tmp_path, offline, monkeypatch):
    restricted(tmp_path / "fixed/imagenet", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make = downloads.lock
    def refuse(path):
        if path.parent == tmp_path / "fixed": raise PermissionError(13, "Permission denied", str(path))
        return make(path)
    monkeypatch.setattr(downloads, "lock", refuse)
    assert len(load("resimagenet", root=tmp_path / "fixed").train) == 18
    assert len(list((tmp_path / "cache/robustacc").glob("resimagenet-72-*"))) == 1
    assert tree(tmp_path / "fixed")[0] == "imagenet" and not list((tmp_path / "fixed").glob("*resimagenet*"))


# arrays

def test_from_arrays_keeps_memory_maps(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), np.uint8))
    images = np.load(path, mmap_mode="r")
    data = Data.from_arrays(images, np.arange(20) % 4, images[:4], np.arange(4), eps=.03)
    assert isinstance(data.train.images, np.memmap)
    seen = torch.cat([batch.images for batch in batches(data.train, 6, seed=0, augment=Augment(1, 8, True))])
    assert seen.shape == (20, 3, 8, 8) and 0 <= seen.min() and seen.max() <= 1
    assert data.train.sha256() == data.train.take(20).sha256() == data.train.take(np.arange(20)).sha256()
    assert data.train.sha256() != data.train.take(np.arange(20)[::-1]).sha256()


def test_hash_is_of_type_shape_and_bytes():
    split = rd.Split(np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 1, 3, 4), np.array([0, 1]))
    digest = hashlib.sha256()
    for array in (split.images, split.labels): digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    assert split.sha256() == digest.hexdigest()
    assert rd.Split(split.images.reshape(2, 1, 4, 3), split.labels).sha256() != split.sha256()


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_from_arrays_floats_become_float32(dtype):
    images = np.linspace(0, 1, 4 * 25).reshape(4, 5, 5).astype(dtype)
    data = Data.from_arrays(images, [0, 1, 0, 1], images, [0, 1, 0, 1], eps=.1)
    assert data.train.images.dtype == np.float32 and data.train.images.dtype.isnative
    assert np.array_equal(next(batches(data.train, 4)).images[:, 0].numpy(), images.astype(np.float32))


def test_from_arrays_refuses():
    images, labels = np.zeros((4, 1, 5, 5), np.uint8), [0, 1, 0, 1]
    def attempt(match, a=images, b=labels, c=images, d=labels, **kwargs):
        with pytest.raises(ValueError, match=match): Data.from_arrays(a, b, c, d, **(dict(eps=.1) | kwargs))
    attempt("test_images", c=images.astype(float))
    attempt("test_images", c=np.zeros((4, 1, 5, 6), np.uint8))
    attempt("shape", a=images[:0], b=[])
    attempt("shape", a=images[0, 0])
    attempt("train_images: shape .*channels, height, width", a=images.reshape(4, 25), c=images.reshape(4, 25))
    attempt("train_images", a=np.array([[[None]]]))
    attempt("values from", a=images - .5, c=images.astype(float))
    attempt("values from 0 to 255: they must lie in", a=np.linspace(0, 255, 100).reshape(4, 1, 5, 5))
    attempt("values from -1 to 1: they must lie in", a=np.linspace(-1, 1, 100).reshape(4, 1, 5, 5))
    attempt("NaN", a=np.full((4, 1, 5, 5), np.nan))
    attempt("infinite", a=np.full((4, 1, 5, 5), np.inf))
    attempt("channels-last", a=np.zeros((4, 5, 5, 3), np.uint8))
    attempt("int32", a=images.astype(np.int32))
    attempt("train_images str", a="pictures")
    attempt("test_labels: label 2", d=[0, 1, 2, 1], n_classes=2)
    attempt("no example of class 2", d=[0, 1, 2, 1])
    attempt("no example of class 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 \\.\\.\\.", b=[0, 1, 0, 2**40])
    attempt("train_labels of shape", b=np.eye(4, dtype=int))
    attempt("train_labels: dtype <U3", b=["cat", "dog", "cat", "dog"])
    attempt("train_labels are float", b=[0., 1, 0, 1])
    attempt("test_labels: label -1 of image 3", d=[0, 1, 0, -1])
    attempt("n_classes 1", b=[0] * 4, d=[0] * 4)
    attempt("n_classes 2.5", n_classes=2.5)
    attempt("classes: 3 names: there must be 2", classes=("a", "b", "c"))
    attempt("classes of type str", classes="ab")
    attempt("augment of type int: it must be of type Augment", augment=4)
    for eps in (0, -1, 1.5, float("nan"), "0.1", True, 8, float("inf")): attempt("eps", eps=eps)
    for name in ("", "mnist", "a/b", "..", ".hidden", None, 3, "a\nb"): attempt("name", name=name)


def test_from_arrays_takes_whatever_a_user_has():
    "The same images and labels in many types give the same data set, byte for byte."
    import pandas
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), np.uint8)
    labels = np.array([0, 1, 2, 0, 1, 2])
    expected = Data.from_arrays(images, labels, images, labels, eps=.1).summary()
    fixed = images.copy()
    fixed.flags.writeable = False
    for some in (torch.from_numpy(images), fixed, images[:, 0], list(images), [torch.from_numpy(one) for one in images]):
        assert Data.from_arrays(some, labels, some, labels, eps=.1).summary() == expected
    for some in (labels.tolist(), tuple(labels), torch.from_numpy(labels), labels.astype(">i2"), pandas.Series(labels, index=range(10, 16)), labels.astype(np.uint8)):
        assert Data.from_arrays(images, some, images, some, eps=.1).summary() == expected
    floats = torch.from_numpy(images / 255).requires_grad_()
    close = Data.from_arrays(floats, labels, floats.detach().numpy().astype(">f8"), labels, eps=.1)
    assert np.array_equal(close.train.images, (images / 255).astype(np.float32)) and np.array_equal(close.train.images, close.test.images)
    black_and_white = Data.from_arrays(images > 99, labels, images > 99, labels, eps=.1)
    assert np.array_equal(black_and_white.train.images, np.where(images > 99, 255, 0)) and black_and_white.train.images.dtype == np.uint8


def test_nearly_black_images_are_taken_with_a_warning():
    images, labels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2) % 2, [0, 1]
    with pytest.warns(UserWarning, match="train_images: uint8 with values 0 and 1 only"): data = Data.from_arrays(images, labels, 255 * images, labels, eps=.1)
    assert np.array_equal(data.train.images, images[:, None]) and np.array_equal(data.test.images, 255 * images[:, None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Data.from_arrays(255 * images, labels, 2 * images, labels, eps=.1)                 # black and white, or a value above 1: no doubt what is meant


def test_labels_of_any_integer_type():
    images = np.zeros((3, 2, 2), np.uint8)
    for dtype in (np.uint8, np.int32, np.uint64):
        labels = np.array([0, 1, 2], dtype)
        data = Data.from_arrays(images, labels, images, labels, eps=.1)
        assert data.train.labels.dtype == np.int64


# the real files, where they are

def real(name: str) -> Data:
    if not REAL: pytest.skip("ROBUSTACC_DATA is not set")
    try: return load(name, root=REAL, download=False)
    except FileNotFoundError: pytest.skip(f"{name} is not in ROBUSTACC_DATA")


@pytest.mark.parametrize("name, train, test, digests", [
    ("mnist", 60_000, 10_000, ("7260a7355c338e8392209e125b7d63c7ff7749e3d215d14dee1e731393040450",
                               "6d4950903bed79dc6247602637e27e02668fc0eb6afefcdbc397c4d8ec8821de")),
    ("cifar10", 50_000, 10_000, ("236658291b13ae8a2ffca05c6e10c548113d2b36fa873858b0c4d39b5f693e1a",
                                 "11e04191664027bb814c2cc8dc9e45c8c5d9f34aab1425f661d6226fbaf1f7e3"))])
def test_real(name, train, test, digests):
    import torchvision.datasets
    data = real(name)
    assert (len(data.train), len(data.test), data.summary()["sha256"]) == (train, test, dict(zip(("train", "test"), digests)))
    for split, flag in ((data.train, True), (data.test, False)):
        theirs = getattr(torchvision.datasets, name.upper())(REAL, train=flag)
        images = theirs.data.numpy()[:, None] if name == "mnist" else theirs.data.transpose(0, 3, 1, 2)
        assert np.array_equal(split.images, images) and np.array_equal(split.labels, np.asarray(theirs.targets))


def test_real_svhn():
    data = real("svhn")
    assert (len(data.train), len(data.test), data.in_shape) == (73_257, 26_032, (3, 32, 32))


def test_real_resimagenet():
    data = real("resimagenet")
    for split in (data.train, data.test): assert np.array_equal(np.unique(split.labels), np.arange(9))


# a fair part of a split

@pytest.mark.parametrize("seed", range(12))
def test_stratified_choices_keep_the_quotas_and_contain_each_other(seed):
    rng = np.random.default_rng(seed)
    k, total = int(rng.integers(1, 30)), int(rng.integers(40, 160))
    shares = rng.dirichlet(np.full(k, rng.choice([.1, 1, 50])))  # from one dominant class to equal ones
    labels = rng.choice(k, total, p=shares)
    split, counts, before = rd.Split(np.zeros((total, 1, 1, 1), np.uint8), labels), np.bincount(labels, minlength=k), set()
    for n in range(1, total + 1):
        part = split.stratified(n, seed=seed)
        assert part.dtype == np.int64 and (np.diff(part) > 0).all() and len(part) == n and 0 <= part[0] and part[-1] < total
        quota = [divmod(n * int(count), total) for count in counts]
        taken = np.bincount(labels[part], minlength=k).tolist()
        assert all(floor <= got <= floor + bool(rest) for got, (floor, rest) in zip(taken, quota)), (n, taken, quota)
        assert before <= set(part.tolist())
        before = set(part.tolist())
    assert np.array_equal(part, np.arange(total))


def test_stratified_is_largest_remainder_where_the_remainders_differ_little():
    "Ten equal classes: the brute-force largest remainder is one place for each class of a seeded half."
    labels = np.repeat(np.arange(10), 100)
    split = rd.Split(np.zeros((1000, 1, 1, 1), np.uint8), labels)
    for n in (5, 10, 100, 137):
        taken = np.bincount(labels[split.stratified(n)], minlength=10)
        assert sorted(taken) == sorted([n // 10 + (c < n % 10) for c in range(10)])


def test_stratified_does_not_favour_a_position():
    "Over many seeds each example of a class is chosen equally often."
    labels = np.repeat([0, 1], [30, 10])
    split = rd.Split(np.zeros((40, 1, 1, 1), np.uint8), labels)
    hits = sum(np.bincount(split.stratified(8, seed=seed), minlength=40) for seed in range(3000))
    assert hits.sum() == 24_000
    chi2 = ((hits - 600)**2 / 600).sum()  # each of 40 examples is expected in 8 / 40 of 3,000 choices
    assert chi2 < 75, hits  # without replacement the sum is smaller than chi-square of 39 degrees (p = .0005 at 75)


def test_stratified_refuses():
    split = rd.Split(np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 1, 0, 1]))
    for bad in (0, -1, 5, 2.5, True, "3", None):
        with pytest.raises(ValueError, match="^n "): split.stratified(bad)
    for bad in (-1, .5, "0", True):
        with pytest.raises(ValueError, match="^seed "): split.stratified(2, seed=bad)
