"""What a SIGKILL may leave: whole files or none, and a rerun that ends as if nothing had happened. Twenty kills in each place, spread over the length of a run.

Training has its own, in test_resume.py. Processes are forked from a clean one; papermill's is a real one, with its kernel, and both are killed at once."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robustacc.files import checkout
from robustacc.records import read_record
from test_site import small_checkout
from test_train import chapter  # noqa: F401

KILLS = 20


def separation(folder):
    from robustacc.separation import main
    main(["--dataset=digits", f"--json={folder / 'out' / 'digits.json'}", "--backend=brute"])


def audit(folder):
    from robustacc.separation import main
    main([f"--images={folder / 'x.npy'}", f"--labels-file={folder / 'y.npy'}", f"--json={folder / 'out' / 'audit.json'}", f"--html={folder / 'out' / 'audit.html'}"])


def site(folder):
    from robustacc.site.__main__ import main
    main([f"--root={folder / 'demo'}", "--engine=pandoc", "--runs=results/runs"])


def publishing(folder):
    from robustacc.publishing import main
    main([*map(str, sorted((folder / "_runs").rglob("*.json"))), f"--runs={folder / '_runs'}", f"--results={folder / 'out'}", "--allow-dirty", "--allow-unknown-source"])


def record(folder):
    from robustacc.records import write_record
    source = read_record(sorted((checkout() / "results" / "smoke" / "digits").glob("*/at-seed0.json"))[0])
    for i in range(60): write_record(folder / "out" / f"at-seed{i}.json", {**source, "settings": {**source["settings"], "seed": i}})


def prepared(place, folder):
    (folder / "out").mkdir(parents=True)
    rng = np.random.default_rng(0)
    if place == "audit":
        np.save(folder / "x.npy", rng.integers(0, 256, (2500, 1, 16, 16), np.uint8))
        np.save(folder / "y.npy", np.arange(2500) % 10)
    if place == "site":
        (folder / "demo").mkdir()
        small_checkout(folder / "demo")
    if place == "publishing":
        source = sorted(p for p in (checkout() / "results" / "smoke" / "digits").rglob("*") if p.suffix in (".json", ".webp"))
        for path in source:
            to = folder / "_runs" / path.relative_to(checkout() / "results")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)


def shown(place, folder):
    "The files that a reader sees, and what they say; times are left out."
    base = folder / "demo" / "_docs" if place == "site" else folder / "out"
    found = {}
    for path in sorted(base.rglob("*")):
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(base).parts): continue
        content = path.read_bytes()
        if path.suffix == ".json" and place != "site":
            known = json.loads(content)                                      # a half-written one would not be read
            found[str(path.relative_to(base))] = {k: v for k, v in known.items() if k not in ("seconds", "environment", "source")}
        elif path.suffix != ".ipynb": found[str(path.relative_to(base))] = content
    if place == "audit" and "audit.html" in found: assert found["audit.html"].endswith(b"</html>")
    return found


def started(clean_processes, place, folder):
    "A process that has begun its work: what it took to import this file does not count."
    (begun := folder / "begun").unlink(missing_ok=True)
    process = clean_processes.Process(target=in_silence, args=(place, folder))
    process.start()
    while not begun.exists() and process.is_alive(): time.sleep(.002)
    return process


def in_silence(place, folder):
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2): os.dup2(output, stream)
    os.chdir(folder)
    (folder / "begun").touch()
    globals()[place](folder)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["separation", "audit", "site", "publishing", "record"])
def test_twenty_kills_leave_nothing_half_written(place, clean_processes, tmp_path):
    prepared(place, whole := tmp_path / "whole")
    process, begun = started(clean_processes, place, whole), time.monotonic()
    process.join(600)
    assert process.exitcode == 0, (whole / "output.txt").read_text()
    seconds, expected = time.monotonic() - begun, shown(place, whole)
    assert expected
    kills, at, seen = 0, 0, []
    prepared(place, folder := tmp_path / "killed")
    while kills < KILLS:
        process = started(clean_processes, place, folder)
        process.join(seconds * (at % KILLS + .5) / KILLS)
        at += 1
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        now = shown(place, folder)
        seen.append(len(now))
        assert now.keys() <= expected.keys()
        if place != "site": assert all(expected[name] == content for name, content in now.items())
        if not (process.exitcode == 0 or at % 5 == 0): continue
        process = started(clean_processes, place, folder)                     # the rerun is right
        process.join(600)
        assert process.exitcode == 0, (folder / "output.txt").read_text()
        now = shown(place, folder)
        assert now.keys() == expected.keys() and all(now[name] == expected[name] for name in now if not name.endswith((".json", ".ipynb", ".svg", ".xml")) or place != "site")
        shutil.rmtree(folder)
        prepared(place, folder)
        if at > 200: pytest.fail(f"{place}: it ends before it can be killed")
    print(f"{place}: {kills} kills in runs of {seconds:.2f} s; files in place after each: {seen}")


@pytest.mark.slow
def test_twenty_kills_of_a_row_under_papermill(chapter, fewer, tmp_path):  # noqa: F811
    environment = {**fewer(train=60, test=20), "MPLBACKEND": "agg"}

    def start(folder):
        folder.mkdir(exist_ok=True)
        call = [sys.executable, "-m", "papermill", "--no-progress-bar", chapter, folder / "page.ipynb", "-p", "epochs", "2", "-p", "method", "natural", "-p", "device", "cpu", "-p", "results", folder / "runs"]
        return subprocess.Popen(list(map(str, call)), cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=open(folder / "said.txt", "w"), start_new_session=True)

    def outcome(folder):
        path, = (folder / "runs").rglob("natural*.json")
        record = {k: v for k, v in read_record(path).items() if k not in ("seconds", "environment", "source")}
        return record, path.with_suffix(".safetensors").read_bytes(), path.with_suffix(".npz").read_bytes(), [p.read_bytes() for p in path.parent.glob("*.webp")]

    begun = time.monotonic()
    process = start(tmp_path / "whole")
    assert process.wait(900) == 0, (tmp_path / "whole" / "said.txt").read_text()[-2000:]
    seconds, expected, folder, seen = time.monotonic() - begun, outcome(tmp_path / "whole"), tmp_path / "killed", []
    for kill in range(KILLS):
        process = start(folder)
        try: process.wait(seconds * (.3 + .7 * (kill % KILLS + .5) / KILLS))
        except subprocess.TimeoutExpired: os.killpg(process.pid, signal.SIGKILL)
        for kernel in Path("/proc").glob("[0-9]*/cmdline"):                  # the kernel has a session of its own
            try:
                if str(folder).encode() in (kernel.parent / "cwd").readlink().as_posix().encode() and b"ipykernel" in kernel.read_bytes(): os.kill(int(kernel.parent.name), signal.SIGKILL)
            except OSError: pass
        process.wait()
        finished = list((folder / "runs").rglob("natural*.json"))
        seen.append(len(finished))
        if finished: assert outcome(folder) == expected
        if finished or kill == KILLS - 1:
            assert start(folder).wait(900) == 0, (folder / "said.txt").read_text()[-2000:]
            assert outcome(folder) == expected and json.loads((folder / "page.ipynb").read_text())["cells"]
            shutil.rmtree(folder)
    print(f"papermill: {KILLS} kills in runs of {seconds:.1f} s; records in place after each: {seen}")
