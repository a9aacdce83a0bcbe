#!/usr/bin/env bash
# A real one-node Slurm on this machine; two rows of digits through workflow/profiles/slurm as one job array, then one that fails; and away with it again.
# Takes about three minutes on an idle machine. KEEP=1 keeps the logs. Needs root and Debian's packages: apt-get install slurm-wlm munge; pip install -e '.[dev,slurm]'. Not part of CI.
#   tests/slurm/run.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-.venv/bin/python}
for command in slurmctld slurmd sbatch munged; do
  command -v "$command" > /dev/null || { echo "no $command here: apt-get install slurm-wlm munge"; exit 2; }
done
if [ -e /etc/slurm/slurm.conf ]; then echo "/etc/slurm/slurm.conf exists: this test brings its own"; exit 2; fi
if pgrep -x slurmctld > /dev/null; then echo "a slurmctld runs already: this test starts its own"; exit 2; fi
work=$(mktemp -d /tmp/robustacc-slurm.XXXXXX)
conf=/etc/slurm/slurm.conf  # the default place: job steps do not inherit SLURM_CONF
pids=()
snakemake=
cleanup() {
  trap - EXIT INT TERM
  [ -z "$snakemake" ] || kill -9 "$snakemake" 2> /dev/null || true  # asked to stop, it would wait for its jobs
  scancel --user="$(id -un)" 2> /dev/null || true
  for _ in $(seq 60); do [ -z "$(squeue --noheader 2> /dev/null)" ] && break; sleep .5; done
  for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2> /dev/null || true; done
  rm -f "$conf"
  if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

echo "== munge and Slurm start"
mkdir -p "$work"/{state,spool,munge}
chmod 755 "$work"; chmod 700 "$work/munge"
dd if=/dev/urandom of="$work/munge/key" bs=128 count=1 status=none
chmod 400 "$work/munge/key"
munged --foreground --force --socket="$work/munge/socket" --key-file="$work/munge/key" --pid-file="$work/munge/pid" --log-file="$work/munge/log" \
  --seed-file="$work/munge/seed" > /dev/null 2>&1 &
pids+=($!)
host=$(hostname -s)
mkdir -p /etc/slurm
cat > "$conf" <<EOF
ClusterName=robustacc
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
SlurmctldPort=26817
SlurmdPort=26818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MinJobAge=3600
KillWait=2
MaxArraySize=1001
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(($(free -m | awk '/^Mem:/ {print $2}') - 1000)) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
for _ in $(seq 50); do [ -S "$work/munge/socket" ] && break; sleep .1; done
slurmctld -D -i > /dev/null 2>&1 & pids+=($!)
slurmd -D > /dev/null 2>&1 & pids+=($!)
for _ in $(seq 60); do [ "$(sinfo -h -o %T 2> /dev/null)" = idle ] && break; sleep .5; done
sinfo
[ "$(sinfo -h -o %T)" = idle ] || { tail -n 20 "$work"/slurm*.log; exit 1; }

runs=$work/runs
through_slurm() {  # ROWS OPTIONS...: the rows of a file through the profile
  rows=$1; shift
  "$python" -m snakemake --snakefile workflow/Snakefile --workflow-profile workflow/profiles/slurm --configfile "tests/slurm/$rows" --until train --nolock \
    --slurm-no-account --slurm-status-command squeue --slurm-init-seconds-before-status-checks 5 --slurm-logdir "$work/slurm-logs" --latency-wait 10 \
    --default-resources slurm_partition=main --set-resources train:mem_mb=1500 "$@" --config profile=smoke seeds="0 1" runs="$runs" >> "$work/snakemake.log" 2>&1 &
  snakemake=$!  # in the background, so that a signal to this script is heard
  wait "$snakemake"
}

echo "== two rows as one array"
through_slurm rows.yaml --slurm-array-jobs train || { tail -n 40 "$work/snakemake.log"; exit 1; }
squeue --states=all --array --format '%.12i %.10T %.6M %.4C %.8m'

echo "== the same and one that fails, job by job"
status=0
through_slurm failing.yaml || status=$?
squeue --states=all --array --format '%.12i %.10T %.6M %.4C %.8m'

echo "== what must hold"
"$python" - "$runs" "$work" "$status" <<'EOF'
import subprocess, sys
from pathlib import Path
from robustacc.records import find_records
runs, work, status = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
records = find_records("digits", folders=[runs])
assert [(r["settings"]["seed"], r["settings"]["recipe"]["epochs"], r["environment"]["threads"]) for r in records] == [(0, 1, 1), (1, 1, 1)], records
pages = sorted(p.name for p in (runs / "smoke/notebooks").iterdir())
assert pages == ["train-digits-CNN2-natural-seed0.ipynb", "train-digits-CNN2-natural-seed1.ipynb"], pages
assert status != 0, "a row failed, and snakemake did not say so"
log, = (runs / "smoke/logs").glob("*val*.log")
assert "validation" in log.read_text(), log.read_text()
jobs = subprocess.run(["squeue", "--states=all", "--array", "--noheader", "--format", "%i %T"], capture_output=True, text=True, check=True).stdout.splitlines()
assert sorted(jobs)[:2] == ["1_1 COMPLETED", "1_2 COMPLETED"] and len(jobs) == 3 and sorted(jobs)[2].endswith(" FAILED"), jobs  # nothing that was finished ran again
assert len(list((work / "slurm-logs").glob("**/*.log"))) == 3
for r in records: print(f"seed {r['settings']['seed']}: test {r['metrics']['test_acc']:.1f}%, PGD-10 {r['metrics']['adv_test_acc']['pgd']:.1f}%")
EOF
echo "== all of it passed"
