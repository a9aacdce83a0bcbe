"""One run of the workflow in a checkout at a time: it goes on after any kill, stops on SIGTERM as on Ctrl-C, and says one line per finished job.

Snakemake keeps a lock of its own in files, which a killed run leaves behind. Here the kernel keeps one too, which ends with its process: who has it
knows that files of the other kind mean nothing, and removes them.
"""
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path

from robustacc.files import LockedError, lock


def one_at_a_time() -> None:
    "Let Snakemake lock its folder by the kernel's lock too; a run that has it removes the files of those that were killed, one that has it not is refused."
    from snakemake import persistence
    from snakemake.exceptions import WorkflowError
    kind = getattr(persistence, "PersistenceBase", None) or persistence.Persistence
    usual = kind.lock

    @contextmanager
    def both(self):
        with ExitStack() as held:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    held.enter_context(lock(Path(self.path) / "run"))
            except UserWarning: pass                                            # no locks on this file system: Snakemake's own files decide
            except LockedError as error: raise WorkflowError(f"the workflow runs already in this checkout: {error.strerror}") from None
            else:
                self.cleanup_locks()
                os.makedirs(Path(self.path) / "locks", exist_ok=True)
            with usual(self): yield
    kind.lock = both


def stop_on_sigterm() -> None:
    "Let SIGTERM do what Ctrl-C does in a terminal: interrupt all processes of the group. Snakemake would let its jobs come to their end."
    import psutil
    from snakemake.scheduling.job_scheduler import JobScheduler

    def stop(*_):
        for child in psutil.Process().children(recursive=True):
            try:
                if os.getpgid(child.pid) == os.getpgrp(): child.send_signal(signal.SIGINT)  # papermill passes it on to its kernel
            except (OSError, psutil.Error): pass                                # it has ended
        signal.signal(signal.SIGTERM, signal.SIG_IGN)                           # once is enough
        raise KeyboardInterrupt
    JobScheduler.exit_gracefully = stop                                         # Snakemake makes it the handler when it begins to schedule
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)                    # the jobs of who was started in the background would not hear it


class OneLine(logging.Handler):
    "Says a line for each job that ends, and errors; everything else is in Snakemake's log file."
    def __init__(self, describe: Callable[[str, list[str]], str]):              # of a rule and its outputs: what is said of a finished job
        super().__init__(logging.INFO)
        self.describe, self.jobs, self.total, self.begun = describe, {}, 0, time.monotonic()
        self.ended, self.word = 0, "failed"

    def left(self) -> str:
        "The time left, in words, if the jobs to come take as long as those that have ended; nothing before there are two."
        if self.ended < 2 or self.ended >= self.total: return ""
        minutes = (time.monotonic() - self.begun) / self.ended * (self.total - self.ended) / 60
        return ", less than a minute left" if minutes < 1 else f", about {minutes:.0f} min left" if minutes < 90 else f", about {minutes / 60:.1f} h left"

    def line(self, record: logging.LogRecord) -> str | None:
        "What is said of an event, if anything."
        event = getattr(record, "event", None)
        if event == "run_info": self.total = sum(n for rule, n in record.stats.items() if rule not in ("all", "total"))
        elif event == "job_info": self.jobs[record.jobid] = record.rule_name, [str(f) for f in record.output or ()]
        elif event == "job_finished":
            rule, output = self.jobs.get(record.job_id, ("all", []))
            if rule == "all": return None
            self.ended += 1
            return f"[{self.ended} of {self.total}{self.left()}] {self.describe(rule, output)}"
        elif event == "job_error": return f"{self.word}: {Path(str((record.output or [record.rule_name])[0])).stem}, see {' '.join(map(str, record.log or ()))}"
        elif str(record.msg).startswith("Terminating processes"):
            self.word = "stopped"
            return "stopping; the same command goes on from here"
        elif event in (None, "error") and record.levelno >= logging.WARNING and not str(record.msg).startswith(("Exiting because", "RuleException")): return record.getMessage()
        elif str(record.msg).startswith(("Complete log", "Nothing to be done")): return record.getMessage()

    def emit(self, record: logging.LogRecord) -> None:
        try: line = self.line(record)
        except Exception as error: line = f"{getattr(record, 'event', '')}: {type(error).__name__}: {error}"  # a line must not end a night's work
        if line: print(line, file=sys.stderr, flush=True)


def quiet(logger: logging.Logger, describe: Callable[[str, list[str]], str]) -> None:
    "Say one line per job on the terminal instead of all that Snakemake says."
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler": handler.addFilter(lambda record: False)
    logger.addHandler(OneLine(describe))
