"""fastcls doctor: a broken installation is distinguished from a broken fastcls, and from one that works."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Fastcls

from fastcls.machine import extras
from fastcls.running import doctor, loading

BOUNDS = {"torch": "?", "simplejpeg": "?", **extras.declared()}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine of four cores and no GPU, whatever this one is."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(doctor, "DRIVER", Path("no-driver"))
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *a, **k: None if name == "nvidia-smi" else real(name, *a, **k))


@pytest.mark.published
def test_where_all_is_well_a_small_network_is_trained_exported_and_used(fastcls: Fastcls) -> None:
    outcome = fastcls("doctor")
    assert outcome.code == 0, outcome.output
    assert "torch  " in outcome.output and "The installation is consistent." in outcome.output
    assert outcome.output.splitlines()[-1].endswith("fastcls works here.")
    assert "problem" not in outcome.output and list(Path().iterdir()) == []


def test_what_breaks_in_a_sound_installation_is_a_fault_of_fastcls(
    fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(loading, "import_fastai", broken)
    monkeypatch.setattr(doctor, "_imports", lambda _: None)
    outcome = fastcls("doctor")
    assert outcome.code == 1 and "fastcls itself is broken: please report it" in outcome.output
    assert "RuntimeError: shapes differ" in outcome.output
    assert fastcls("doctor", "--quick").code == 0

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading, "import_fastai", full)
    outcome = fastcls("doctor")
    assert outcome.code == 5 and "No space left on device" in outcome.output and "report it" not in outcome.output


def broken_version(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or real(name))


def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda n: version(n) if n == "simplejpeg" else real(n))


def unimportable(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.import_module

    def broken(name: str) -> object:
        if name == "onnxruntime":
            raise ImportError("libonnx.so: cannot open shared object file")
        return real(name) if name in ("numpy",) else None

    monkeypatch.setattr(doctor, "importlib", SimpleNamespace(import_module=broken, metadata=importlib.metadata))


def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).")

    Path("driver").touch()
    monkeypatch.setattr(doctor, "DRIVER", Path("driver"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(torch.cuda, "init", refuse)


def old_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=2**34))
    monkeypatch.setattr(torch, "ones", refuse)


def no_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("FASTCLS_DATA", str(Path("file/data").absolute()))


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e8))


@pytest.mark.parametrize(
    ("broken", "said", "fix"),
    [
        (lambda patch: broken_version(patch, torch="2.4.0"), f"{BOUNDS['torch']} (2.4.0)", "pip install 'torch>="),
        (missing, f"{BOUNDS['simplejpeg']} (missing)", "pip install 'simplejpeg>="),
        (lambda patch: broken_version(patch, optuna="3.1"), "optuna>=4 (3.1)", "pip install 'optuna>=4'"),
        (unimportable, "cannot be imported: ImportError: libonnx.so", "pip install --force-reinstall 'onnxruntime"),
        (old_driver, "built for CUDA 12.4 and cannot use the driver: The NVIDIA driver", "Update the NVIDIA driver"),
        (old_kernels, "cuda:0 was found, but torch", "pip install --upgrade torch torchvision"),
        (no_cache_folder, "The folder of datasets", "export FASTCLS_DATA="),
        (full_disk, "has 0.10 GB left", "fastcls cache --clear all"),
    ],
    ids=["old", "gone", "extra", "damaged", "driver", "kernels", "folder", "disk"],
)
def test_what_is_wrong_is_named_with_the_command_that_mends_it(
    broken: Callable[[pytest.MonkeyPatch], None],
    said: str,
    fix: str,
    fastcls: Fastcls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not extras.declared():
        pytest.skip("nothing is declared in a checkout that is not installed")
    if broken is not unimportable:
        monkeypatch.setattr(doctor, "_imports", lambda _: None)
    broken(monkeypatch)
    outcome = fastcls("doctor")
    assert outcome.code == 5, outcome.output
    problems = outcome.output.split("\nproblem: ")[1:]
    assert any(said in problem and fix in problem for problem in problems), outcome.output
    assert "The installation is broken, not fastcls" in outcome.output


def test_what_is_odd_is_a_note_and_no_problem(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_imports", lambda _: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2e9))
    Path("driver").touch()
    monkeypatch.setattr(doctor, "DRIVER", Path("driver"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", None)
    outcome = fastcls("doctor", "--quick")
    assert outcome.code == 0
    for said in ("OMP_NUM_THREADS=1 on 4 cores leaves cores idle", "has 2.0 GB left", "was built without CUDA"):
        assert said in outcome.output
    monkeypatch.setenv("OMP_NUM_THREADS", "auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = fastcls("doctor", "--quick").output
    assert "OMP_NUM_THREADS=auto is not an integer" in said and "unset CUDA_VISIBLE_DEVICES" in said


def test_without_training_the_rest_is_in_order(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        if name == "fastcls":
            raise importlib.metadata.PackageNotFoundError(name)
        return ["numpy>=1.26", "onnxruntime>=1.20"]

    there = extras.there
    monkeypatch.setattr(importlib.metadata, "requires", requires)
    monkeypatch.setattr(extras, "there", lambda module: module != "torch" and there(module))
    outcome = fastcls("doctor")
    assert outcome.code == 0 and "fastcls-predict does not include training" in outcome.output
    outcome = fastcls("recipe", "digits-cnn")
    assert outcome.code == 5 and "needs torch, which is not in fastcls-predict" in outcome.output
