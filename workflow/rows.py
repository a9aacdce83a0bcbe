"""Many rows in one call, several at a time, without Snakemake: for a borrowed machine that has torch and little else.

    python workflow/rows.py --list --profile paper --datasets mnist > rows.jsonl     # at home, where PyYAML is: a row a line, the cheapest first
    python3 workflow/rows.py rows.jsonl --results OUT --jobs 4 --minutes 9           # there; the same call again goes on where it stopped
    python -m robustacc.records --runs OUT OUT/paper/mnist/CNN2/*.json               # at home again: publish

Each row is a `python -m robustacc.train` of its own, with its output in OUT/logs, and all of them share the GPU: in turns, or at the same time where
NVIDIA's MPS is running (`nvidia-cuda-mps-control -d`). When the time is up, rows that are not finished are interrupted and keep their checkpoints in
OUT. Finished rows are skipped, and a row that fails does not stop the others.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path: sys.path.insert(0, str(ROOT))

from robustacc.files import results_folder  # noqa: E402
from robustacc.runs import listed_rows  # noqa: E402
from robustacc.train import plan  # noqa: E402

PASSES = {"natural": 1, "gr": 4, "at": 11, "rst": 12, "trades": 13, "llr": 14}  # through the network and back for each example, about


def listed(profile: str, datasets: list[str] | None, studies: list[str], seeds: list[int]) -> list[dict]:
    "The rows of a profile's configuration, the cheapest first; `ValueError` names an unknown data set or study."
    rows = listed_rows(profile, datasets=datasets or None, studies=["", *studies], seeds=seeds)
    once = {str(plan(**row).path): row for row in rows}
    return sorted(once.values(), key=lambda row: PASSES.get(row["method"], max(PASSES.values())) * plan(**row).recipe.epochs)


def start(row: dict, results: Path) -> subprocess.Popen:
    "A row in a process of its own; Ctrl-C reaches it only through us."
    log = results / "logs" / f"{plan(**row, results=str(results)).path.relative_to(results).with_suffix('.log').as_posix().replace('/', '-')}"
    log.parent.mkdir(parents=True, exist_ok=True)
    options = [f"--{name}={value}" for name, value in {**row, "results": results}.items()]
    return subprocess.Popen([sys.executable, "-m", "robustacc.train", *options], stdin=subprocess.DEVNULL, stdout=log.open("a"), stderr=subprocess.STDOUT,
                            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
                            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])})


def run(rows: list[dict], results: Path, jobs: int, minutes: float) -> dict[str, list[str]]:
    "Names of rows by what became of them: finished, failed, stopped, not begun."
    def name(row): return "/".join(plan(**row).path.with_suffix("").parts[-4:])
    done = [plan(**row, results=str(results)).finished() is not None for row in rows]
    became, begun, deadline = {"finished": [name(row) for row, is_there in zip(rows, done) if is_there]}, time.monotonic(), time.monotonic() + 60 * minutes
    due, running = [row for row, is_there in zip(rows, done) if not is_there], {}
    def say(word, row):
        became.setdefault(word, []).append(name(row))
        print(f"{(time.monotonic() - begun) / 60:6.1f} min  {word} {name(row)}", flush=True)
    try:
        while (due or running) and time.monotonic() < deadline:
            while due and len(running) < jobs:
                row = due.pop(0)
                running[start(row, results)] = row
            time.sleep(.2)
            for job in [job for job in running if job.poll() is not None]: say("failed" if job.returncode else "finished", running.pop(job))
    except KeyboardInterrupt: print("stopping", flush=True)
    except BaseException:
        for job in running: job.send_signal(signal.SIGINT)
        raise
    for job in [job for job in running if job.poll() is not None]: say("failed" if job.returncode else "finished", running.pop(job))
    for job in running: job.send_signal(signal.SIGINT)
    for job, row in running.items(): say("stopped" if job.wait() else "finished", row)
    return became | ({"not begun": [name(row) for row in due]} if due else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?", help="a file of rows, from --list")
    parser.add_argument("--list", action="store_true", help="print rows instead of running them")
    parser.add_argument("--profile", default="paper", choices=("smoke", "quick", "medium", "paper"), help="of --list (default: %(default)s)")
    parser.add_argument("--datasets", nargs="*", help="of --list; default: all")
    parser.add_argument("--studies", nargs="*", default=[], help="of --list: rows of these studies too")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0], help="of --list (default: 0)")
    parser.add_argument("--results", default="_runs", help="folder for records, weights, checkpoints and logs (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=4, help="rows at a time (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=9., help="after which unfinished rows are interrupted (default: %(default)s)")
    options = parser.parse_args()
    if options.list == bool(options.rows): parser.error("give a file of rows, or --list")
    if options.jobs < 1 or not options.minutes > 0: parser.error(f"jobs {options.jobs}, minutes {options.minutes}: jobs must be 1 or more, minutes above 0")
    try:
        if options.list:
            for row in listed(options.profile, options.datasets, options.studies, options.seeds): print(json.dumps(row))
            return
        for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.default_int_handler)  # a batch system's end, and Ctrl-C for who was started in the background
        rows = [json.loads(line) for line in Path(options.rows).read_text().splitlines() if line.strip()]
        became = run(rows, results_folder(options.results), options.jobs, options.minutes)
    except (OSError, ValueError, TypeError) as error: parser.error(str(error))
    print("; ".join(f"{len(names)} {word}" for word, names in became.items()))
    for word in ("failed", "stopped"):
        for name in became.get(word, []): print(f"  {word}: {name}")
    sys.exit(1 if "failed" in became else 3 if became.keys() - {"finished"} else 0)


if __name__ == "__main__": main()
