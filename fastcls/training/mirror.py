"""Checkpoints at an address too, s3://bucket/prefix say, from which a machine that has no run folder continues.

ADDRESS/00000007/ holds the files of RUN/checkpoints/00000007, and those of the run folder that its continuation reads.
MANIFEST, which `sha256sum -c` reads, is written last and removed first: a folder without it is no checkpoint. The two
newest are kept. A thread sends them, so that no step waits for a slow store; the run's end does.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import Empty, Queue

from fastcls.datasets.buckets import Bucket, is_address
from fastcls.errors import FastclsError, OutputError
from fastcls.log import logger
from fastcls.runfolder import inside, runs, schema
from fastcls.settings import shell
from fastcls.training.checkpoints import BEST, FOLDER, KEPT, MANIFEST, STATE, TENSORS, Damaged, Store

OWN = (STATE, TENSORS, BEST)
OF_RUN = {  # and the bytes that each may have: what comes back may be a third party's
    "run.json": schema.LARGEST,
    "recipe.py": inside.LARGEST[".py"],
    "check.json": schema.LARGEST,
    "history.csv": inside.LARGEST[".csv"],
    "probe.csv": inside.LARGEST[".csv"],
}
NEEDED = {*OWN, "run.json", "recipe.py"}
MOST = {STATE: 256_000_000, MANIFEST: 10_000}
_LINE = re.compile(r"([0-9a-f]{64})  ([\w.]+)")


def refuse_used(address: str) -> None:
    """OutputError where a new run cannot send its checkpoints: the address cannot be written, or another run's are."""
    place = _place(address)
    if whole := _whole(place.sizes()):
        raise OutputError(
            f"--checkpoints {address} already has checkpoints of a run, the newest {whole[0]}.",
            "Continue that run with  --resume auto , or use another address.",
        )
    place.write("writable", b"")
    place.remove("writable")


@contextlib.contextmanager
def sending(address: str, run: Path, say: Callable[[str], object]) -> Iterator[Callable[[Path], object]]:
    """Gives what is called with every new checkpoint of a run; at the end waits until the newest is at the address.

    say: called with what the user should know. Where the store fails, the run continues, with its own.
    """
    if not address:
        yield lambda checkpoint: None
        return
    sender = _Sender(address, run, say)
    try:
        yield sender.send
    finally:
        sender.finish()


class _Sender:
    """One checkpoint is sent at a time; of those that wait meanwhile only the newest is."""

    def __init__(self, address: str, run: Path, say: Callable[[str], object]) -> None:
        self.address, self.run, self.say = address, run, say
        self.place = _place(address)
        self.waiting: Queue[Path] = Queue()
        self.problem: FastclsError | None = None  # of the last attempt
        self.said: FastclsError | None = None
        self.thread: threading.Thread | None = None

    def send(self, checkpoint: Path) -> None:
        """Hand over a checkpoint. Its files and the run's are linked: they may be replaced before they are sent."""
        snapshot = checkpoint.with_name(f".sending-{checkpoint.name}")
        try:
            shutil.rmtree(snapshot, ignore_errors=True)
            snapshot.mkdir()
            for file in (*(checkpoint / name for name in (*OWN, MANIFEST)), *(self.run / name for name in OF_RUN)):
                if file.is_file():
                    _link(file, snapshot / file.name)
        except OSError as problem:  # a full disk
            self.problem = OutputError(f"{snapshot} cannot be written: {problem.strerror}.")
            self._report()
            return
        with contextlib.suppress(Empty):
            shutil.rmtree(self.waiting.get_nowait(), ignore_errors=True)
            self.waiting.task_done()
        self.waiting.put(snapshot)
        if self.thread is None:
            self.thread = threading.Thread(target=self._work, daemon=True, name="checkpoints")
            self.thread.start()
        self._report()

    def finish(self) -> None:
        """Wait until all is sent, or has failed for good."""
        if self.waiting.unfinished_tasks:
            logger.info(f"sending the newest checkpoint to {self.address}")
        self.waiting.join()
        self._report()

    def _report(self) -> None:
        problem = self.problem
        if problem is not None and self.said is None:
            self.say(
                f"checkpoints cannot be sent to {self.address}: {problem.message} "
                f"Those in {self.run / FOLDER} are complete."
            )
        elif problem is None and self.said is not None:
            self.say(f"checkpoints are sent to {self.address} again.")
        self.said = problem

    def _work(self) -> None:
        while snapshot := self.waiting.get():
            try:
                self._write(snapshot)
                self.problem = None
            except FastclsError as problem:
                self.problem = problem
            except OSError as problem:
                self.problem = OutputError(f"{problem.filename} cannot be read: {problem.strerror}.")
            finally:
                shutil.rmtree(snapshot, ignore_errors=True)
                self.waiting.task_done()

    def _write(self, snapshot: Path) -> None:
        name = snapshot.name.rpartition("-")[2]
        held = self.place.sizes()
        if (whole := _whole(held)) and whole[0] > name:
            raise OutputError(f"there is a newer one, {whole[0]}: another process continues this run.")
        if f"{name}/{MANIFEST}" in held:
            self.place.remove(f"{name}/{MANIFEST}")
        own = (snapshot / MANIFEST).read_text(encoding="ascii")
        further = [file for file in OF_RUN if (snapshot / file).is_file()]
        for file in (*OWN, *further):
            self.place.write(f"{name}/{file}", snapshot / file)
        lines = own + "".join(f"{runs.digest(snapshot / file)}  {file}\n" for file in further)
        self.place.write(f"{name}/{MANIFEST}", lines.encode("ascii"))
        keep = {name, *whole[: KEPT - 1]} if name not in whole else {*whole[:KEPT]}
        with contextlib.suppress(FastclsError):  # the next one tries again
            for file in sorted(held, key=lambda file: not file.endswith(MANIFEST)):
                folder, _, rest = file.partition("/")
                if folder not in keep and re.fullmatch(r"\d{8}", folder) and rest in {*OWN, *OF_RUN, MANIFEST}:
                    self.place.remove(file)


def fetch(address: str, run: Path, accept: Callable[[Path], object] = lambda came: None) -> str | None:
    """Bring the newest whole checkpoint, and what else of its run is there, into a run folder; gives its number.

    None where the folder has one as new, or the address none at all. Who calls it holds the folder's lock. accept: is
    given a folder of what came, and raises where it is not to become part of the run folder. OutputError
    where they are another run's, or none that is there is whole; DownloadError where the store does not answer.
    """
    place = _place(address)
    held = place.sizes()
    begun = (run / "run.json").is_file()
    newest = max((int(folder.name) for folder in Store(run).folders()), default=0) if begun else 0
    damaged = []
    for name in _whole(held):
        if int(name) <= newest:
            return None
        if not begun and any(file.name not in (FOLDER, *OF_RUN) for file in run.iterdir()):
            runs.check_writable(run)
        try:
            part = run / FOLDER / f".fetched-{name}"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            with runs.whole(part):
                _fetch(place, name, held, run, part, accept)
            return name
        except Damaged as problem:
            damaged.append(f"{address}/{name} was refused: {problem}")
            logger.warning(f"note: {damaged[-1]}.")
        finally:
            with contextlib.suppress(OSError):  # it holds a checkpoint
                part.parent.rmdir()
    if damaged and not newest:
        raise OutputError(
            f"{damaged[0]}; no other is complete.", f"Remove the contents of {address} to start the run over."
        )
    return None


def _fetch(
    place: Bucket, name: str, held: Mapping[str, int], run: Path, part: Path, accept: Callable[[Path], object]
) -> None:
    sums = _sums(place, name, held)
    sizes = {file: held[f"{name}/{file}"] for file in sums}
    if large := [file for file, size in sizes.items() if size > (OF_RUN | MOST).get(file, size)]:
        raise Damaged(f"{large[0]} is too large")
    if (free := shutil.disk_usage(part).free) < sum(sizes.values()):
        raise OutputError(
            f"{place.address}/{name} has {sum(sizes.values()) / 1e9:.1f} GB, but the disk of {run} has only "
            f"{free / 1e9:.1f} GB free.",
            "Free some space, or choose a folder on another disk with --out.",
        )
    for file, digest in sums.items():
        place.fetch(f"{name}/{file}", part / file, sizes[file], threading.Event())
        if runs.digest(part / file) != digest:
            raise Damaged(f"{file} does not match its manifest")
    record = runs.read_json(part / "run.json")
    if (run / "run.json").is_file():
        own = runs.read_json(run / "run.json")
        if any(own.get(key) != record.get(key) for key in ("started", "recipe", "seed")):
            raise OutputError(
                f"{place.address} has checkpoints of another run than {run}, started {record.get('started')}.",
                "Use another address, or another --out.",
            )
    accept(part)
    (part / MANIFEST).write_text("".join(f"{sums[file]}  {file}\n" for file in OWN), encoding="ascii")
    for file in OF_RUN.keys() & sums.keys() - {"run.json"}:
        (part / file).replace(run / file)
    shutil.rmtree(run / FOLDER / name, ignore_errors=True)
    part.rename(run / FOLDER / name)
    (run / FOLDER / name / "run.json").replace(run / "run.json")  # which makes it a run folder, last


def _sums(place: Bucket, name: str, held: Mapping[str, int]) -> dict[str, str]:
    """The sha256 of each file of a checkpoint, as its manifest has them; Damaged where it is none of ours."""
    if held[f"{name}/{MANIFEST}"] > MOST[MANIFEST]:
        raise Damaged("its manifest is too large")
    lines = place.read(f"{name}/{MANIFEST}").decode("ascii", "replace").splitlines()
    found = [line for line in map(_LINE.fullmatch, lines) if line]
    sums = {line[2]: line[1] for line in found}
    if len(found) != len(lines) or not NEEDED <= set(sums) <= {*OWN, *OF_RUN}:
        raise Damaged("its manifest was not written by fastcls")
    if missing := [file for file in sums if f"{name}/{file}" not in held]:
        raise Damaged(f"{missing[0]} is missing")
    return sums


def _whole(held: Mapping[str, int]) -> list[str]:
    """The checkpoints among these files that were written to their end, newest first."""
    return sorted((file[:8] for file in held if re.fullmatch(rf"\d{{8}}/{MANIFEST}", file)), reverse=True)


def _place(address: str) -> Bucket:
    if is_address(address):
        return Bucket(address)
    folder = shell.path(address).absolute()
    runs.check_place(folder, "--checkpoints ")
    return Bucket(folder.as_uri())


def _link(file: Path, target: Path) -> None:
    """The same bytes a second time, which take no room where the file system can link; nothing writes into either."""
    try:
        target.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, target)
