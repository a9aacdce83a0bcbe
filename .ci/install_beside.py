"""python .ci/install_beside.py VENV WHEEL: install a wheel in an empty environment with its requirements, and theirs, linked from this one.

What pip would download again is here already. What the wheel does not ask for is not linked, so a requirement that it forgot to name is missing there.
"""
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

venv, wheel = sys.argv[1:]
python = Path(venv) / "bin" / "python"
target = Path(subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True, text=True).stdout.strip())
subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel], check=True)
metadata = next(target.glob("robustacc-*.dist-info")) / "METADATA"
asked = [Requirement(line.removeprefix("Requires-Dist: ")) for line in metadata.read_text().splitlines() if line.startswith("Requires-Dist: ")]
linked, due = set(), [r for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
while due:
    requirement = due.pop()
    wanted = [(requirement.name, extra) for extra in ("", *requirement.extras)]
    for name, extra in wanted:
        if (canonicalize_name(name), extra) in linked: continue
        linked.add((canonicalize_name(name), extra))
        try: found = distribution(name)
        except PackageNotFoundError: sys.exit(f"{name}, which the wheel asks for, is not installed here")
        if requirement.specifier and not requirement.specifier.contains(found.version, prereleases=True): sys.exit(f"{requirement}: {found.version} is installed here")
        due += [r for r in map(Requirement, found.requires or ()) if r.marker is None or r.marker.evaluate({"extra": extra})]
        for part in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            there, source = target / part, Path(found.locate_file(part))
            if source.exists() and not there.exists(): there.symlink_to(source)
print(f"{len({name for name, _ in linked})} packages linked in {target}")
