"""Transfer learning from real weights on few photographs, against stock fastai and timm:

python -m benchmarks.transfer --data ~/data --weights ../shared/data --out transfer.jsonl
python -m benchmarks.transfer --out transfer.jsonl --table --plot transfer.png

Test accuracy and CPU seconds of pets, birds and Imagenette at 5, 10 and 20 images a class and all of them, with two
networks and several seeds. Every cell is a process of its own with one thread; its row is appended to the file when it
ends, and cells that are in the file are not measured again: stop it when you like and run the same command again.
Cheap cells come first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import transfer_data
from benchmarks.common import hardware, images_home
from benchmarks.transfer_data import Dataset

DATASETS = ("pets", "birds", "imagenette")
NETWORKS = {"lite0": "tf_efficientnet_lite0", "mobilenet_v2": "mobilenet_v2"}
METHODS = {"ours-probe": 1, "ours-full": 8, "fastai-4": 5, "fastai-20": 21, "timm": 30}  # passes over the images
SECONDS_A_PASS, SECONDS_AT_LEAST = 0.18, 30  # of a core an image; of the test images and everything else
SHOTS = "5,10,20,all"


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    dataset: str
    network: str
    method: str
    shots: str
    seed: int

    def words(self) -> str:
        return " ".join(str(getattr(self, field.name)) for field in fields(self))


def expected(cell: Cell, dataset: Dataset) -> float:
    """CPU seconds, roughly."""
    images = len(dataset.subset(cell.shots, cell.seed)[0])
    return METHODS.get(cell.method, 5) * images * SECONDS_A_PASS + SECONDS_AT_LEAST


def cells(given: argparse.Namespace, loaded: dict[str, Dataset]) -> list[Cell]:
    """All that were asked for, the cheap and telling first: a further seed, say, counts as three times the cost."""
    chosen = [
        Cell(dataset, network, method, "all" if loaded[dataset].takes_all(shots) else shots, seed)
        for dataset in loaded
        for network in given.networks
        for method in given.methods
        for shots in given.shots
        for seed in range(given.seeds)
    ]

    def urgency(cell: Cell) -> float:
        later = 3**cell.seed * (6 if cell.dataset == "imagenette" else 1) * (1.5 if cell.network != "lite0" else 1)
        return expected(cell, loaded[cell.dataset]) * later

    return sorted(dict.fromkeys(chosen), key=urgency)


def rows(file: Path) -> Iterator[dict]:
    """The measurements that a file holds; a line that was cut short is left out."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            print(f"{file}: not a row: {line[:60]!r}", file=sys.stderr)


def done(file: Path) -> set[Cell]:
    return {Cell(**{field.name: row[field.name] for field in fields(Cell)}) for row in rows(file)}


def measured(cell: Cell, given: argparse.Namespace) -> dict:
    """The row of a cell, made in this process."""
    from benchmarks import transfer_methods

    dataset = transfer_data.load(cell.dataset, given.data)
    train, valid = dataset.subset(cell.shots, cell.seed)
    arch = NETWORKS[cell.network]
    task = transfer_methods.Task(
        dataset.root, train, valid, dataset.test, arch, given.weights / f"{arch}.safetensors", cell.seed
    )
    with transfer_methods.quietly():
        found = transfer_methods.measure(cell.method, task)

    import torch

    return {
        **vars(cell),
        "images": {"train": len(train), "valid": len(valid), "test": len(dataset.test)},
        **found,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "hardware": hardware(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "fastai", "timm")},
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    }


def measure(given: argparse.Namespace) -> int:
    """Measure what is missing from the file; gives how many cells failed."""
    loaded = {name: transfer_data.load(name, given.data) for name in given.datasets}
    failed, started = 0, time.monotonic()
    os.setpriority(os.PRIO_PROCESS, 0, max(given.nice, os.getpriority(os.PRIO_PROCESS, 0)))  # cells inherit it
    plan = [cell for cell in cells(given, loaded) if cell not in done(given.out)]
    print(
        f"{len(plan)} cells, about {sum(expected(c, loaded[c.dataset]) for c in plan) / 3600:.1f} CPU hours", flush=True
    )
    for number, cell in enumerate(plan, 1):
        if given.minutes and time.monotonic() - started > 60 * given.minutes:
            print(f"{given.minutes} minutes are over; run the same command again for the rest.")
            break
        if cell in done(given.out):  # by another process meanwhile
            continue
        if given.list:
            print(f"{cell.words()}: about {expected(cell, loaded[cell.dataset]):.0f} s")
            continue
        words = [sys.executable, "-W", "ignore", "-m", "benchmarks.transfer", "--cell", cell.words()]
        words += ["--data", str(given.data), "--weights", str(given.weights)]
        with tempfile.TemporaryDirectory() as empty:  # of ours: what another cell decoded is not there
            env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "FASTCLS_DATA": empty}
            ended = subprocess.run(words, env=env, capture_output=True, text=True)
        if ended.returncode:
            failed += 1
            print(f"{number}/{len(plan)} {cell.words()}: failed\n{ended.stderr[-2000:]}", flush=True)
            continue
        line = ended.stdout.strip().splitlines()[-1]
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with given.out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        row = json.loads(line)
        print(
            f"{number}/{len(plan)} {cell.words()}: {100 * row['accuracy']:.1f} %, {row['cpu_train']:.0f} CPU s",
            flush=True,
        )
    return failed


def listed(known: tuple[str, ...] | dict[str, object]) -> object:
    """A type for argparse: names divided by commas, each of them known."""

    def names(text: str) -> list[str]:
        found = [name.strip() for name in text.split(",") if name.strip()]
        if strange := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(strange)}: choose from {', '.join(known)}")
        return found

    return names


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=images_home(), help="folder of the datasets (FASTCLS_IMAGES, else ~/data)"
    )
    parser.add_argument("--weights", type=Path, default="../shared/data", help="folder of the two weights files")
    parser.add_argument("--out", type=Path, default="transfer.jsonl", help="file of the rows")
    parser.add_argument(
        "--only", type=listed([*DATASETS, *NETWORKS]), default=[], help="datasets and networks: pets,lite0"
    )
    parser.add_argument("--methods", type=listed(METHODS), default=[*METHODS], help=",".join(METHODS))
    parser.add_argument("--shots", type=listed(SHOTS.split(",")), default=SHOTS.split(","), help=SHOTS)
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--minutes", type=float, default=0, help="start no further cell after so many")
    parser.add_argument("--nice", type=int, default=15, help="how far the cells give way to other processes (15)")
    parser.add_argument("--list", action="store_true", help="only list the missing cells with their expected seconds")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument(
        "--save", action="store_true", help="only write benchmarks/results/transfer.json and docs/transfer.png"
    )
    parser.add_argument("--plot", type=Path, help="only draw accuracy against CPU seconds into this file")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.datasets = [name for name in DATASETS if name in given.only] or DATASETS
    given.networks = [name for name in NETWORKS if name in given.only] or NETWORKS
    given.data, given.weights, given.out = (p.expanduser() for p in (given.data, given.weights, given.out))
    return given


def main() -> None:
    given = arguments()
    if given.cell:
        *names, seed = given.cell.split()
        print(json.dumps(measured(Cell(*names, int(seed)), given)))
    elif given.table or given.plot or given.save:
        from benchmarks import transfer_results

        found = [
            row for row in rows(given.out) if row["dataset"] in given.datasets and row["network"] in given.networks
        ]
        if given.table:
            print(transfer_results.table(found))
        if given.save:
            transfer_results.save(found)
        if given.plot:
            transfer_results.plot(found, given.plot)
    else:
        sys.exit(measure(given) > 0)


if __name__ == "__main__":
    main()
