"""The processes of a run find each other, wait for each other, and tell each other what the first one knows.

torch.distributed's collectives over gloo, and NCCL for what lies on GPUs. Nothing is pickled: values travel as JSON
and safetensors. A process that is gone is noticed at the next collective: ProcessLost.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors.torch import load, save

from fastcls.errors import EnvironmentProblem, ProcessLost, TrainingError, UsageError
from fastcls.machine import devices, launch, ranks
from fastcls.runfolder import runs
from fastcls.training.checkpoints import pack, unpack

STEP = timedelta(minutes=10)  # for the slowest step, the first process's checkpoint included
PREPARATION = timedelta(days=2)  # for downloading and decoding all images, on the slowest machine

CHUNK = 1 << 24  # bytes of a file that are sent at once
AHEAD = {"cpu": 1, "cuda": 3}  # steps: a GPU's process prepares the next ones while the others still compute this one

_patient: dist.ProcessGroup | None = None  # the processes once more, for waits as long as PREPARATION
_store: dist.Store | None = None  # what they found each other through


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """The processes that were started together are one group while this lasts, or until `leave`.

    EnvironmentProblem where accelerate is missing, or where they do not find each other.
    """
    launch.require_accelerate()
    _join()
    with contact():  # after an error the group is left to the end of the process: NCCL would wait for the others
        yield
    leave()


def _join() -> None:
    global _patient, _store
    where = devices.device()
    place = ranks.here()
    meeting = os.environ.get(ranks.RENDEZVOUS) or "env://"
    if meeting == "env://" and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UsageError(
            "RANK and WORLD_SIZE are set, but not MASTER_ADDR and MASTER_PORT.",
            "Start the processes with torchrun, accelerate launch or --gpus N; for a single one unset WORLD_SIZE.",
        )
    os.environ.setdefault("LOCAL_RANK", str(place.local_rank))
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # or accelerate chooses, with a warning
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    try:
        _store, rank, world = next(dist.rendezvous(meeting, place.rank, place.world, timeout=STEP))
        device = where if where.type == "cuda" else None
        dist.init_process_group(backend, timeout=STEP, world_size=world, rank=rank, store=_store, device_id=device)
        _patient = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=PREPARATION))
    except RuntimeError as problem:
        address = "" if meeting != "env://" else f" at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise EnvironmentProblem(
            f"The {place.world} processes could not connect to each other{address}: {_brief(problem)}",
            "Start the same command for every rank; this address and port must be reachable from all machines.",
        ) from None
    from accelerate import PartialState

    PartialState(cpu=where.type == "cpu")  # while the environment still says what it looks for
    ranks.join()


def leave() -> None:
    """The group ends for everyone: each process goes on alone."""
    global _patient
    if _patient is not None:
        barrier()
        dist.destroy_process_group()
        _patient = None
        ranks.leave()


def barrier() -> None:
    """Wait for all processes, however long they prepare."""
    if _patient is not None:
        with contact():
            dist.barrier(group=_patient)


def broadcast(value: Any) -> Any:
    """The first process's value, on every process: what `checkpoints.pack` takes, as JSON and safetensors."""
    if _patient is None:
        return value
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(pack(value, tensors)) if ranks.first() else ""
    with contact():
        text = _broadcast(text.encode()).decode()
        tensors = load(_broadcast(save(tensors) if ranks.first() else b""))
    return unpack(json.loads(text), tensors)


def _broadcast(data: bytes) -> bytes:
    size = torch.tensor([len(data)])
    dist.broadcast(size, 0, group=_patient)
    held = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(int(size), dtype=torch.uint8)
    if len(held):
        dist.broadcast(held, 0, group=_patient)
    return held.numpy().tobytes()


def all_gather(digest: str) -> list[str]:
    """A text of one length of every process, by rank."""
    if _patient is None:
        return [digest]
    own = torch.frombuffer(bytearray(digest.encode()), dtype=torch.uint8)
    parts = [torch.empty_like(own) for _ in range(ranks.world())]
    with contact():
        dist.all_gather(parts, own, group=_patient)
    return [part.numpy().tobytes().decode() for part in parts]


def collect(own: Path, home: Path) -> None:
    """Bring each process's file to rank 0, which need not see their disks: into `home`, under its own name."""
    name = json.dumps(own.name if own.is_file() else "").encode()
    for rank, held in enumerate(gather(torch.frombuffer(bytearray(name), dtype=torch.uint8)) or []):
        if rank and (file := json.loads(held.numpy().tobytes())):
            runs.atomic_path(home / file, partial(_receive, rank))
    if not ranks.first() and own.is_file():
        with own.open("rb") as stream, contact():
            while True:
                block = bytearray(stream.read(CHUNK))
                dist.send(torch.tensor([len(block)]), 0, group=_patient)
                if not block:
                    break
                dist.send(torch.frombuffer(block, dtype=torch.uint8), 0, group=_patient)


def _receive(rank: int, file: Path) -> None:
    size = torch.zeros(1, dtype=torch.int64)
    with file.open("wb") as stream, contact():
        while True:
            dist.recv(size, rank, group=_patient)
            if not size:
                return
            block = torch.empty(int(size), dtype=torch.uint8)
            dist.recv(block, rank, group=_patient)
            stream.write(block.numpy().tobytes())


class Meetings:
    """Steps at which all processes do something together. Until then no step has a collective, only a look at a store.

    No process is more than `ahead` steps before another: the average of their gradients holds it.
    """

    def __init__(self, device: str) -> None:
        assert _store is not None
        self.store, self.ahead = dist.PrefixStore("meetings", _store), AHEAD[device]
        self.held = self.step = 0

    def now(self, wanted: bool) -> bool:
        """To be called once a step: whether all meet at this one. wanted: this process would like to, soon."""
        self.step += 1
        key = str(self.held)
        if wanted:
            self.store.compare_set(key, "", str(self.step + self.ahead))  # unless another was first
        if not self.store.check([key]) or int(self.store.get(key)) > self.step:
            return False
        self.held += 1
        return True


def gather(own: torch.Tensor) -> list[torch.Tensor]:
    """Rank 0: the tensor of every process, by rank, of any shapes; the others, which give theirs: nothing."""
    header = torch.zeros(8, dtype=torch.int64)
    header[: own.ndim + 1] = torch.tensor([own.ndim, *own.shape])
    headers = [torch.empty_like(header) for _ in range(ranks.world())]
    with contact():
        dist.all_gather(headers, header, group=_patient)
        if not ranks.first():
            if own.numel():
                dist.send(own.contiguous(), 0, group=_patient)
            return []
        parts = [own]
        for rank, (ndim, *shape) in enumerate((held.tolist() for held in headers[1:]), 1):
            parts.append(own.new_empty(shape[:ndim]))
            if parts[rank].numel():
                dist.recv(parts[rank], rank, group=_patient)
    return parts


@contextlib.contextmanager
def contact() -> Iterator[None]:
    """ProcessLost where a collective fails because another process is gone; what DDP refuses, in our words."""
    try:
        yield
    except RuntimeError as problem:
        if ranks.world() > 1 and (isinstance(problem, dist.DistError) or "gloo" in str(problem)):
            raise ProcessLost(
                f"Another process of this run ended or cannot be reached ({_brief(problem)}).",
                "See its own error message for the reason.",
            ) from problem
        if "Expected to have finished reduction" in str(problem):
            raise TrainingError(
                "Some parameters of this network get no gradient, so the processes cannot average gradients.",
                "Freeze or remove the layers that the loss does not depend on, or train with one process.",
            ) from problem
        raise


def _brief(problem: Exception) -> str:
    """The first sentence of a message, without the place in torch's source."""
    text = str(problem).rpartition("\n\t")[2]  # fastai has written before it in which callback it came up
    return re.sub(r"^\[\S+:\d+\] ", "", text.splitlines()[0]).split(". ")[0].rstrip(".")[:200]
