"""Two processes, started by Accelerate, train one network: with the outcome of one process, one set of files, and one end."""
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from conftest import as_a_command

pytest.importorskip("accelerate")
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
          "--dynamo_backend", "no", "--main_process_port", "0"]
FITS = """
from dataclasses import replace
import torch
from safetensors.torch import save_file
from robustacc.data import load
from robustacc.methods import make_method
from robustacc.networks import WideResNet, build
from robustacc.processes import find_group
from robustacc.fitting import fit
from robustacc.recipes import Recipe
from robustacc.training_state import EarlyStopping

torch.set_num_threads(1)
team, digits = find_group("cpu"), load("digits").take(train=61, test=20)             # batches of 20, 20, 20 and 1: the last leaves one process without any
summed = Recipe(2, 1e-4, (1,), momentum=.9, batch_size=20)
cases = {"at": ("at", summed, {}), "rst, mean": ("rst", replace(summed, lr=.002, reduction="mean"), {}), "gr": ("gr", summed, {}),  # TRADES, LLR: see the chapter
         "adam, averaged, watched": ("natural", replace(summed, optimiser="adam", reduction="mean"), dict(ema=.9, best=EarlyStopping(digits.test)))}
for name, (method, recipe, tools) in cases.items():
    torch.manual_seed(team.rank)                                                  # everybody starts from the first one's weights
    net = build("CNN2", dropout=0)
    torch.nn.init.normal_(net.fc3.weight, std=.1)
    history = fit(net, digits, replace(make_method(method), steps=3), recipe=recipe, progress=False, **tools)
    state = {key: value.contiguous() for key, value in net.state_dict().items()} | {"loss": torch.tensor([entry["loss"] for entry in history], dtype=torch.float64)}
    save_file(state, f"{name} {team.size}-{team.rank}.safetensors")
torch.manual_seed(0)
wide = WideResNet(in_shape=(1, 28, 28), depth=10, width=1)
fit(wide, digits, make_method("natural"), recipe=replace(summed, epochs=1), progress=False)
save_file({key: value.contiguous() for key, value in wide.state_dict().items()}, f"wide {team.size}-{team.rank}.safetensors")
team.leave()
"""
CASES = ("at", "rst, mean", "gr", "adam, averaged, watched")
ROW = """
import sys, torch
from robustacc import train
torch.set_num_threads(1)
train.PROFILES["long"] = {"digits": (("CNN2",), train.Recipe(500, 1e-4, momentum=.9, batch_size=12, train=60, test=10, mt=2, pgd_train=6))}
train.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    (folder / "fits.py").write_text(FITS)
    (folder / "row.py").write_text(ROW)
    return folder


def started(folder, *command, launch=LAUNCH):
    "A job in a process group of its own, with its output in one pipe."
    clean = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.Popen([*launch, *map(str, command)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
                            env={**clean, "OMP_NUM_THREADS": "1"}, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))


def ended(job):
    "Exit code and output."
    output, _ = job.communicate(timeout=300)
    return job.returncode, output


@pytest.fixture(scope="module")
def fits(work):
    "Weights and losses by case and process."
    jobs = started(work, "fits.py"), started(work, "fits.py", launch=[sys.executable])
    for code, output in map(ended, jobs): assert code == 0, output
    return lambda name: [load_file(work / f"{name} {who}.safetensors") for who in ("1-0", "2-0", "2-1")]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_where_one_does(name, fits):
    alone, first, second = fits(name)
    for key in alone: assert torch.equal(first[key], second[key]), key
    losses = [found.pop("loss") for found in (alone, first)]
    assert torch.allclose(*losses, rtol=1e-5, atol=0), losses
    weights = [torch.cat([value.flatten() for _, value in sorted(found.items())]) for found in (alone, first)]
    assert (weights[1] - weights[0]).norm() / weights[0].norm() < (1e-4 if "adam" in name else 1e-5)      # Adam divides by what is small


def test_running_statistics_are_the_same_everywhere_but_not_those_of_one_process(fits):
    alone, first, second = fits("wide")
    assert all(torch.equal(first[key], second[key]) for key in alone)
    assert not torch.allclose(first["bn.running_var"], alone["bn.running_var"], rtol=1e-5)


def files(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def small_row(output, arguments, cwd, **surroundings):
    "`python -m robustacc.train ARGUMENTS` with a tiny profile; the environment tells a process of a group who it is."
    os.environ.update(surroundings)
    from robustacc import train
    train.PROFILES["tiny"] = {"digits": (("CNN2",), train.Recipe(2, 1e-3, momentum=.9, batch_size=12, train=60, test=10, mt=2, pgd_train=6))}
    as_a_command(output, "robustacc.train:main", arguments, cwd)


@pytest.fixture
def rows(clean_processes, work):
    "Train the tiny row of AT in a group of processes, or alone: the exit codes, and what all of them said."
    def run(results, size):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = dict(WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free.getsockname()[1])) if size > 1 else {}
        output = work / f"{results}{size}.txt"
        output.unlink(missing_ok=True)
        arguments = f"--method at --dropout 0 --profile tiny --device cpu --results {results}".split()
        team = [clean_processes.Process(target=small_row, args=(output, arguments, work), kwargs=meeting | (dict(RANK=str(rank), LOCAL_RANK=str(rank)) if meeting else {})) for rank in range(size)]
        for process in team: process.start()
        for process in team: process.join(300)
        return [process.exitcode for process in team], output.read_text()
    return run


def test_one_record_from_two_processes_and_one_message_when_it_is_refused(work, rows):
    codes, output = rows("together", 2)
    assert codes == [0, 0], output
    assert output.count("at-dropout0-seed0.json") == 1 and output.count("ours (tiny)") == 2       # a row for each attack, from one process
    assert files(work / "together") == [f"at-dropout0-seed0.{end}" for end in ("json", "npz", "safetensors")]
    assert rows("alone", 1)[0] == [0]
    records = [json.loads(next((work / name).rglob("*.json")).read_text()) for name in ("together", "alone")]
    assert [record["environment"].pop("processes") for record in records] == [2, 1]
    for key in ("settings", "data", "environment"): assert records[0][key] == records[1][key]
    assert [e["loss"] for e in records[0]["history"]] == pytest.approx([e["loss"] for e in records[1]["history"]], rel=1e-5)
    there = next((work / "together").rglob("*.json"))
    there.write_text(there.read_text().replace('"momentum": 0.9', '"momentum": 0.5'))                 # other settings of the profile, so the same name
    codes, output = rows("together", 2)
    assert all(codes) and output.count("error: ") == 1 and "holds a finished run of other settings (recipe.momentum: 0.5 -> 0.9)" in output


@pytest.mark.slow
def test_ctrl_c_stops_both_and_one_process_goes_on_where_they_were(work):
    row = "row.py --method natural --profile long --device cpu --results interrupted".split()
    job, kept = started(work, *row, "--every", "0"), work / "interrupted/long/digits/CNN2/natural-seed0.training.checkpoint"
    deadline = time.monotonic() + 200
    while not kept.exists() and time.monotonic() < deadline: time.sleep(.05)
    time.sleep(.5)
    os.killpg(job.pid, signal.SIGINT)                                                  # as a terminal does it
    code, output = ended(job)
    assert code and output.count("stopped: ") == 1 and kept.name in output, output
    assert files(work / "interrupted") == [kept.name]
    from robustacc.checkpoints import read_checkpoint
    _, meta = read_checkpoint(kept)
    done = (len(meta["history"]), meta["step"])
    assert (0, 0) < done < (500, 0)
    again = started(work, *row, "--every", "0", launch=[sys.executable])
    while read_checkpoint(kept)[1]["history"][:1] == [] or (len((now := read_checkpoint(kept)[1])["history"]), now["step"]) <= done: time.sleep(.05)
    os.killpg(again.pid, signal.SIGINT)
    code, output = ended(again)
    assert code == 130 and "stopped: " in output, output
    assert read_checkpoint(kept)[1]["history"][:len(meta["history"])] == meta["history"]
