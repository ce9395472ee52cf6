"""Records of the jobs of a sweep, in whatever process they are, for those who ask at its end."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from ntkrun.storage.atomic import write_text_atomically, writing

FOLDER = ".jobs"


class SharedDirectoryError(ValueError):
    """Two jobs of one sweep have the same run directory; the message is one line for the user."""


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: counted from 0.
        directory: the run directory; empty where the job has not come so far.
        status: ``completed``, ``failed`` or ``interrupted``, and ``running`` until then.
        message: one line about a failure.
    """

    number: int
    directory: str = ""
    status: str = "running"
    message: str = ""


def forget_jobs(sweep: Path) -> None:
    """Drop what an earlier sweep in the same directory has left."""
    with writing(sweep / FOLDER):
        if (sweep / FOLDER).exists():
            shutil.rmtree(sweep / FOLDER)


def claim(sweep: Path, number: int, directory: Path) -> None:
    """Note that a job starts, and that its run directory is its own in this sweep.

    Raises:
        SharedDirectoryError: it is another job's.
        WriteError: the note cannot be written.
    """
    note(sweep, Job(number, str(directory)))
    digest = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:32]
    path = sweep / FOLDER / f"{digest}.claim"
    with writing(path):
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(str(number))
        except FileExistsError:
            owner = path.read_text(encoding="utf-8")
            if owner != str(number):  # else it is this job, which a scheduler has started again
                raise shared(owner or "another", number, directory) from None


def shared(one: object, other: object, directory: object) -> SharedDirectoryError:
    """What is wrong where two jobs have the same run directory."""
    return SharedDirectoryError(
        f"jobs {one} and {other} of this sweep share the directory {directory}; "
        "name everything that is swept in hydra.sweep.subdir, or ${hydra:job.num}"
    )


def note(sweep: Path, job: Job) -> None:
    """Write down how a job stands."""
    folder = sweep / FOLDER
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / f"{job.number}.json", json.dumps(asdict(job)) + "\n")


def noted_jobs(sweep: Path, planned: Collection[int] = ()) -> list[Job]:
    """The jobs of a sweep that has ended, in the order of their numbers; no process works on one any more.

    Args:
        sweep: its directory.
        planned: numbers of jobs that should be there.
    """
    jobs = {number: Job(number, "", "interrupted", "before it started") for number in planned}
    for path in (sweep / FOLDER).glob("*.json"):
        job = Job(**json.loads(path.read_text(encoding="utf-8")))
        if job.status == "running":
            job = Job(job.number, job.directory, "failed", "the process ended without a word; see its log")
        jobs[job.number] = job
    return [jobs[number] for number in sorted(jobs)]
