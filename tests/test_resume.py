"""Runs that are killed, interrupted, crowded out or fed with garbage: nothing is lost, nothing half-written, and the end is the same to the last bit."""
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROWS = {  # settings by name, and how often they are kept; two epochs of four or five batches each
    "adam": (dict(method="natural", ema=.9, validation=.25, augment="crop+cutout", profile="tiny"), 0.),     # CNN2: with dropout
    "sgd": (dict(method="natural", arch="CNN1", dropout=.3, profile="summed"), .03),
    "plain": (dict(method="natural", weight_decay=.01, profile="tiny"), 1e9)}
TRAPS = ("half written", "before fsync", "before replace", "after replace")


def tiny_profiles(train, **changes):
    "Two profiles on a few digits: Adam on mean losses, SGD with momentum on sums."
    size = dict(train=60, test=10, mt=2, pgd_train=6)
    train.PROFILES["tiny"] = {"digits": (("CNN2",), train.Recipe(**{**dict(epochs=2, lr=2e-3, milestones=(1,), batch_size=12), **size, **dict(optimiser="adam", reduction="mean", channels_last=True), **changes}))}
    train.PROFILES["summed"] = {"digits": (("CNN1",), train.Recipe(2, 1e-3, (1,), momentum=.9, batch_size=15, **size))}


def spring(trap, after, ready):
    "Let this process stop for good inside the writing of a checkpoint, the one after so many, and say so with a file."
    count, usual = [0], {"write": Path.write_bytes, "fsync": os.fsync, "replace": os.replace}

    def due(name):
        count[0] += ".checkpoint" in str(name)
        return ".checkpoint" in str(name) and count[0] > after

    def stop():
        ready.touch()
        time.sleep(600)

    def write(path, content):
        if not due(path): return usual["write"](path, content)
        usual["write"](path, content[:len(content) // 2])
        stop()

    def fsync(handle):
        if due(os.readlink(f"/proc/self/fd/{handle}")): stop()
        usual["fsync"](handle)

    def replace(old, new):
        halt = due(new)
        if halt and trap == "before replace": stop()
        usual["replace"](old, new)
        if halt: stop()
    if trap == "half written": Path.write_bytes = write
    elif trap == "before fsync": os.fsync = fsync
    else: os.replace = replace


def in_a_process(folder, options, every, ready, trap, after, changes):
    "The command line in a process of its own, which says when it begins to train; its output goes to a file."
    from robustacc import train
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = sys.stderr = open(folder / "output.txt", "w", buffering=1)
    os.dup2(sys.stderr.fileno(), 2)
    tiny_profiles(train, **changes)
    build = train.build

    def announce(*args, **kwargs):
        ready.touch()
        return build(*args, **kwargs)
    if trap: spring(trap, after, ready)
    elif ready: train.build = announce
    train.main([f"--{name}={value}" for name, value in {**options, "device": "cpu", "results": folder / "runs", "every": every}.items()])


@pytest.fixture(scope="module")
def start(tmp_path_factory, clean_processes):
    "Start a run in a process that is forked from a clean one, which has everything imported; wait until it begins to train or is trapped."
    running = []

    def run(folder, options, every, trap=None, after=0, **changes):
        ready = tmp_path_factory.mktemp("ready") / "ready"
        process = clean_processes.Process(target=in_a_process, args=(folder, options, every, ready, trap, after, changes))
        process.start()
        running.append(process)
        while not ready.exists() and process.is_alive(): time.sleep(.002)
        return process
    yield run
    for process in running: process.kill()


@pytest.fixture
def finish(start):
    "Run to the end; returns exit code and output."
    def run(folder, options, every=1e9, **changes):
        process = start(folder, options, every, **changes)
        process.join(300)
        return process.exitcode, (folder / "output.txt").read_text()
    return run


def left(folder):
    "Names of all files of a row."
    return sorted(p.name for p in (folder / "runs").rglob("*") if p.is_file())


def outcome(folder):
    "What must be equal: the record but for its times, weights, per-example outcomes and pictures to the last byte."
    path, = [p for p in (folder / "runs").rglob("*.json")]
    record = json.loads(path.read_text())
    assert record.pop("seconds")["fit"] > 0
    suffixes = [".json", ".npz", ".safetensors", *[".webp"] * ("examples" in record)]         # a network that is never right has no examples to show
    assert left(folder) == sorted(path.with_suffix(s).name for s in suffixes)
    return record, *(path.with_suffix(s).read_bytes() for s in suffixes[1:])


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    "The outcome of a row that nobody disturbs, and how long it takes from the moment it begins to train."
    known = {}

    def of(name):
        if name not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            process, begun = start(folder, ROWS[name][0], 1e9), time.monotonic()
            process.join(300)
            assert process.exitcode == 0, (folder / "output.txt").read_text()
            known[name] = outcome(folder), time.monotonic() - begun
        return known[name]
    return of


@pytest.mark.parametrize("name", ["plain", *(pytest.param(name, marks=pytest.mark.slow) for name in ROWS if name != "plain")])
def test_killed_at_random_moments_a_run_ends_with_the_same_bits(name, start, finish, undisturbed, tmp_path):
    (options, every), rng, kills = ROWS[name], random.Random(name), []
    expected, seconds = undisturbed(name)
    while len(kills) < 7:                                                 # a run that has come to its end is followed by another one
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        while True:
            trap = TRAPS[len(kills) // 2 % 4] if len(kills) % 2 else None
            process = start(folder, options, every, trap, rng.randrange(4))
            if trap is None: process.join(rng.uniform(0, .6 * seconds))
            if not process.is_alive(): break
            process.kill()
            process.join()
            kills.append(trap or "anywhere")
            if len(kills) >= 7:
                finish(folder, options, every)
                break
        assert outcome(folder) == expected, (folder / "output.txt").read_text()
    print(f"{name}: killed {len(kills)} times ({', '.join(kills)})")


def test_a_run_that_is_killed_again_and_again_comes_to_its_end(start, undisturbed, tmp_path):
    "Each process writes two checkpoints and dies in the third: ten batches, two ends of an epoch and seven measurements make nineteen."
    expected, _ = undisturbed("plain")
    for kills in range(40):
        process = start(tmp_path, ROWS["plain"][0], 0, TRAPS[kills % 4], 2)
        if not process.is_alive(): break
        process.kill()
        process.join()
    assert process.exitcode == 0 and 5 <= kills < 40
    assert outcome(tmp_path) == expected


def test_ctrl_c_keeps_what_is_done_and_says_so(start, finish, undisturbed, tmp_path):
    expected, seconds = undisturbed("adam")
    options = ROWS["adam"][0]
    for wait in (.05, .2, .4):
        process = start(tmp_path, options, 1e9)
        time.sleep(wait * seconds)
        if not process.is_alive(): break
        os.kill(process.pid, signal.SIGINT)
        process.join(60)
        said = (tmp_path / "output.txt").read_text()
        assert process.exitcode == 130, said
        assert "keeps what is done, the same command goes on from there" in said and "Traceback" not in said
        assert said.strip().splitlines()[-1].startswith("stopped: ")
        assert any(name.endswith(".checkpoint") for name in left(tmp_path)) and not any("lock" in name for name in left(tmp_path))
    assert finish(tmp_path, options)[0] == 0
    assert outcome(tmp_path) == expected


def test_two_runs_on_one_record(start, finish, undisturbed, tmp_path):
    options = ROWS["plain"][0]
    first = start(tmp_path, options, 0, "before replace", 3)
    (other := tmp_path / "other").mkdir()
    (other / "runs").symlink_to(tmp_path / "runs")
    code, said = finish(other, options)
    assert code == 2 and f"process {first.pid} on " in said and "is at work on" in said and "Traceback" not in said
    first.kill()
    first.join()
    assert any(name.endswith(".lock") for name in left(tmp_path))         # the file stays, and means nothing
    assert finish(tmp_path, options)[0] == 0
    assert outcome(tmp_path) == undisturbed("plain")[0]


class Trap:
    "Something that makes a folder when it is unpickled."
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)


def test_damaged_and_foreign_checkpoints_are_refused_and_left_alone(start, finish, undisturbed, tmp_path):
    options = ROWS["plain"][0]
    process = start(tmp_path, options, 0, "before replace", 5)
    process.kill()
    process.join()
    kept, = (tmp_path / "runs").rglob("natural*.training.checkpoint")
    good = kept.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    weights = undisturbed("plain")[0][1]
    for content in (good[:-1], good[:1000], b"", bytes(flipped), pickle.dumps(Trap(tmp_path / "trapped")), weights):
        kept.write_bytes(content)
        code, said = finish(tmp_path, options)
        assert code == 2 and f"{kept} is damaged or no checkpoint" in said and "delete it to start from the beginning" in said and "Traceback" not in said, said
        assert kept.read_bytes() == content
    assert not (tmp_path / "trapped").exists()
    kept.write_bytes(good)
    code, said = finish(tmp_path, options, lr=1e-3)                      # other settings of the profile, so the same name
    assert code == 2 and "other settings (recipe.lr: 0.002 -> 0.001)" in said and kept.read_bytes() == good
    kept.unlink()                                                        # as the message says: from the beginning
    assert finish(tmp_path, options)[0] == 0
    assert outcome(tmp_path) == undisturbed("plain")[0]


def test_a_full_disk_and_a_folder_that_cannot_be_written(finish, undisturbed, tmp_path):
    options, disk = ROWS["plain"][0], tmp_path / "runs"
    disk.write_text("a file")
    code, said = finish(tmp_path, options)
    assert code == 2 and "cannot write in the folder" in said and "Traceback" not in said
    disk.unlink()
    disk.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        code, said = finish(tmp_path, options, 0)                          # there is room for one checkpoint, not for two
        assert code == 2 and "No space left on device; the checkpoint before it is intact" in said and "bytes)" in said and "Traceback" not in said, said
        assert [name.split(".")[-1] for name in left(tmp_path)] == ["checkpoint"]
        subprocess.run(["mount", "-o", "remount,size=60m", disk], check=True)
        assert finish(tmp_path, options, 0)[0] == 0
        assert outcome(tmp_path) == undisturbed("plain")[0]
    finally: subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("changes,message", [(dict(lr=1e30), "in epoch 1, batch 2: a lower learning rate may help; {} keeps the last good state, after batch 1 of epoch 1"),
                                             (dict(lr=3e38, optimiser="sgd", reduction="sum"), "weights are not finite after batch 1 of epoch 1: a lower learning rate may help; there was no checkpoint yet")])
def test_a_training_that_diverges_keeps_its_last_good_state(changes, message, finish, tmp_path):
    import torch
    from robustacc.checkpoints import read_checkpoint
    code, said = finish(tmp_path, ROWS["plain"][0], 0, **changes)
    kept = list((tmp_path / "runs").rglob("*.training.checkpoint"))
    assert code == 2 and message.format(*kept) in said and "Traceback" not in said, said
    for path in kept: assert all(torch.isfinite(value).all() for value in read_checkpoint(path)[0].values())


def test_a_finite_loss_beyond_reason_stops_too():
    import torch
    from robustacc.data import load
    from robustacc.methods import Natural
    from robustacc.networks import build
    from robustacc.fitting import fit
    from robustacc.recipes import Recipe
    from robustacc.training_state import DivergedError

    class Growing(Natural):
        def loss(self, model, *args): return super().loss(model, *args) * 1e4 ** calls.pop()
    calls = [2, 1, 0]
    torch.manual_seed(0)
    with pytest.raises(DivergedError, match="epoch 1, batch 3: a lower learning rate may help"):
        fit(build("CNN1"), load("digits").take(train=40, test=10), Growing(), recipe=Recipe(1, 1e-9, batch_size=10), progress=False)


FEW = """import robustacc.data
load = robustacc.data.load
robustacc.data.load = lambda name: load(name).take(train=120, test=30)
"""


@pytest.fixture
def command(tmp_path):
    "`python -m robustacc.train` as it is, on the first 120 digits; started, not waited for."
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "sitecustomize.py").write_text(FEW)
    paths = os.pathsep.join([str(tmp_path / "few"), *filter(None, [os.environ.get("PYTHONPATH")])])

    def run(results):
        arguments = "--method at --ema .9 --validation .2 --epochs 2 --device cpu --every 0 --results".split()
        return subprocess.Popen([sys.executable, "-m", "robustacc.train", *arguments, str(results / "runs")], cwd=tmp_path, text=True,
                                env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=open(results / "output.txt", "w"), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return run


def test_the_command_interrupted(command, tmp_path):
    process = command(tmp_path)
    while not any(name.endswith(".checkpoint") for name in left(tmp_path)) and process.poll() is None: time.sleep(.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = (tmp_path / "output.txt").read_text()
    assert said.strip().splitlines()[-1].startswith("stopped: ") and "Traceback" not in said, said
    assert not [name for name in left(tmp_path) if not name.endswith(".checkpoint")]


@pytest.mark.slow
def test_the_command_killed_twenty_times(command, tmp_path):
    (tmp_path / "whole").mkdir()
    begun = time.monotonic()
    assert command(tmp_path / "whole").wait(600) == 0
    seconds, rng, moments = time.monotonic() - begun, random.Random(0), []
    while len(moments) < 20:                                               # a run that has come to its end is followed by another one
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        while True:
            process, begun = command(folder), time.monotonic()
            while len(moments) < 20 and process.poll() is None and not any(name.endswith(".lock") for name in left(folder)): time.sleep(.01)
            try: assert process.wait(rng.uniform(0, .6 * seconds) if len(moments) < 20 else None) == 0, (folder / "output.txt").read_text()
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                moments.append(sorted(name.split(".")[-2] for name in left(folder) if name.endswith(".checkpoint")))
                for file in folder.rglob("*.lock"): file.unlink()          # nobody holds it: it only tells when the next process begins its work
            else: break
        seconds = min(seconds, time.monotonic() - begun)
        assert outcome(folder) == outcome(tmp_path / "whole")
    print(len(moments), "kills, with these kept:", moments)
