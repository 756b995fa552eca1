"""Random numbers that depend on (seed, epoch, image) alone, never on the worker, the batch or what ran before.

The loader puts a batch's key in force with `of`; batch transforms then call `uniform`. Outside of it, `uniform`
draws from torch's own generator, so that the transforms work on any loader.
"""

from __future__ import annotations

import contextlib
import contextvars
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

_WORD = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: splitmix64's step
GOLDEN = np.uint64(_GOLDEN)


@dataclass(frozen=True)
class Key:
    """What a batch's random numbers depend on; `indices` (n,) are positions in the dataset."""

    seed: int
    epoch: int
    indices: np.ndarray


_key: contextvars.ContextVar[Key | None] = contextvars.ContextVar("key", default=None)


def current() -> Key | None:
    """The key in force."""
    return _key.get()


def _mix(z: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every input bit changes half of the output's."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def number(*parts: int) -> int:
    """One 64-bit number from several, in order: `_mix` in Python's integers, which take a tenth of an array's time."""
    z = 0
    for part in parts:
        z = (z + part + _GOLDEN) & _WORD
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
        z ^= z >> 31
    return z


def table(key: Key, columns: int, stream: str) -> np.ndarray:
    """(n, columns) float32 in [0, 1), a row an image of the batch; `stream` names what draws."""
    base = np.uint64(number(key.seed, key.epoch, zlib.crc32(stream.encode())))
    rows = _mix(key.indices.astype(np.uint64) * GOLDEN + base)
    bits = _mix(rows[:, None] + np.arange(1, columns + 1, dtype=np.uint64) * GOLDEN)
    return (bits >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def uniform(n: int, columns: int, stream: str, device: torch.device | str = "cpu") -> torch.Tensor:
    """The `table` of the batch whose key is in force, as a tensor; torch.rand where none is."""
    key = current()
    if key is None or len(key.indices) != n:
        return torch.rand(n, columns, device=device)
    return torch.from_numpy(table(key, columns, stream)).to(device, non_blocking=True)


def reseed(*parts: int, device: torch.device | None = None) -> None:
    """Seed Python's, NumPy's and torch's generators from `parts`; 10 µs, where torch.manual_seed alone takes 90."""
    seed = number(*parts)
    torch.default_generator.manual_seed(seed % 2**63)
    if device is not None and device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed % 2**63)
    elif device is not None and device.type != "cpu":
        torch.manual_seed(seed % 2**63)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextlib.contextmanager
def seeded(*parts: int, device: torch.device | None = None) -> Iterator[None]:
    """Python's, NumPy's and torch's generators seeded from `parts` inside the block, and as they were after it."""
    generators = [torch.default_generator]
    if device is not None and device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [generator.get_state() for generator in generators]
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        reseed(*parts, device=device)
        yield
    finally:
        for generator, before in zip(generators, states, strict=True):
            generator.set_state(before)
        random.setstate(state)
        np.random.set_state(numpy_state)


@contextlib.contextmanager
def of(key: Key) -> Iterator[None]:
    """The random numbers of this batch: `uniform` gives a row an image."""
    token = _key.set(key)
    try:
        yield
    finally:
        _key.reset(token)


def seeded_by(key: Key, device: torch.device | None = None) -> contextlib.AbstractContextManager[None]:
    """All other generators seeded by the batch: for transforms that do not draw by `uniform`."""
    return seeded(key.seed, key.epoch, *key.indices[:1].tolist(), len(key.indices), device=device)
