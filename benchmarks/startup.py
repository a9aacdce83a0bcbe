"""What an import costs: `import robustacc` and `robustacc --version` beside a Python that imports nothing, in turns.

    python benchmarks/startup.py [--repeats 20]

CPU milliseconds of a process from its start to its end, the median over the repetitions, and the median of what it takes more than the
empty process of the same turn. For comparison also what the first use of a name loads. Writes startup.md and startup.json.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median

from robustacc.files import atomic_write
from robustacc.records import environment, source

CASES = {"nothing imported": ["-c", "pass"], "import robustacc": ["-c", "import robustacc"], "import numpy": ["-c", "import numpy"],
         "robustacc --version": ["-m", "robustacc", "--version"], "import robustacc and use PGD": ["-c", "import robustacc; robustacc.PGD()"]}


def cpu_ms(arguments: list[str]) -> float:
    "CPU milliseconds of one process and its children."
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = getrusage(RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    for arguments in CASES.values(): cpu_ms(arguments)                            # files into the cache
    spent = {name: [] for name in CASES}
    for _ in range(options.repeats):
        for name, arguments in CASES.items(): spent[name].append(cpu_ms(arguments))
    more = {name: median(a - b for a, b in zip(values, spent["nothing imported"])) for name, values in spent.items()}
    report = {"cpu_ms": spent, "more_ms": more, "environment": environment(), "source": source("benchmarks/startup.py")}
    where = report["environment"]
    lines = ["# What an import costs", "", f"{where['processor']}, Python {where['python']}, torch {where['torch']}; {options.repeats} turns, other programs on the machine; `benchmarks/startup.py` makes this file.", "",
             "| process | CPU ms, median | more than nothing imported, median |", "|---|---:|---:|",
             *(f"| {name} | {median(values):.0f} | {more[name]:.0f} |" for name, values in spent.items())]
    atomic_write(options.out / "startup.json", json.dumps(report, indent=1) + "\n")
    atomic_write(options.out / "startup.md", "\n".join([*lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__": main()
