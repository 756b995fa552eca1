"""What the tests share: a data folder of their own, the command in-process, one small trained run."""

from __future__ import annotations

import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import quicker
from filelock import FileLock
from typer.testing import CliRunner

from fastcls.cli.verbs import app

if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each worker, and for the processes that it starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["hub_server", "killable", "machines", "object_store", "photographs", "together"]  # their fixtures
ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "fastai", "torchvision", "timm", "pandas", "matplotlib", "numpy", "rich"}
REAL = ROOT.parent / "shared" / "data"  # real photographs, beside the checkout on the project's own machines


def pytest_collection_finish() -> None:
    quicker.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # libraries look for what they leave behind


def pytest_runtest_setup() -> None:
    quicker.operators_once()


@dataclass
class Outcome:
    """What a command did: its exit code, everything it printed, and that on standard output alone."""

    code: int
    output: str
    stdout: str = ""


Fastcls = Callable[..., Outcome]


def command(*words: object, stdin: str = "") -> Outcome:
    """Run `fastcls WORDS` in this process; an exception that would be a traceback fails the test."""
    result = CliRunner().invoke(app, [str(word) for word in words], prog_name="fastcls", input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.output, result.stdout)


def python(*words: object, **how: Any) -> subprocess.CompletedProcess[str]:
    """`python WORDS` in a process of its own, which finds this checkout; `env` is added to the environment."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **how.pop("env", {})}
    return subprocess.run([sys.executable, *map(str, words)], env=env, capture_output=True, text=True, **how)


class Refused(pickle.Unpickler):
    """No pickle is read on any path of ours, but CIFAR's published ones, by an unpickler that admits arrays only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if type(self).__module__ != "fastcls.datasets.cifar":
            raise AssertionError("something was about to be unpickled")
        super().__init__(*args, **kwargs)


def refuse_to_load(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("torch.load was called, which unpickles")


@pytest.fixture(autouse=True)
def no_pickles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests pass with pickle's reader and torch.load out of order, but those of what fastai and torch do themselves."""
    if request.node.get_closest_marker("unpickles") is None:
        monkeypatch.setattr(pickle, "Unpickler", Refused)
        if "torch" in sys.modules:
            monkeypatch.setattr(sys.modules["torch"], "load", refuse_to_load)


@pytest.fixture(scope="session", autouse=True)
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Downloads and made datasets go to a folder of the test session, never to the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTCLS_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small only wait for each other's threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fastcls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fastcls:
    """The command, run in an empty folder, by someone who has no other runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path.with_name(f"{tmp_path.name}-state")))
    return command


def without_sums(run: Path) -> None:
    """Have a run forget the sha256 of its network's files, as one does who changes them knowingly."""
    record = json.loads((run / "model.json").read_text())
    del record["sha256"]
    (run / "model.json").write_text(json.dumps(record))


def _pageless(patch: pytest.MonkeyPatch) -> None:
    from fastcls.audit import shortcuts
    from fastcls.reports import build

    def asked_for(run: Path, *args: Any, status: str | None = None, **kwargs: Any) -> Path:
        if status is None:
            return write(run, *args, **kwargs)
        (run / "report.html").write_text("left out")
        return run / "report.html"

    write = build.write
    patch.setattr(build, "write", asked_for)
    patch.setattr(shortcuts, "find", lambda *_: None)


def _unexported(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("fastcls.inference.export._export_onnx", lambda *_: "left out")


def unreport(patch: pytest.MonkeyPatch) -> None:
    """Runs without what takes a tiny one most of its time: page, ONNX file, the search for what predicts its classes.

    `fastcls report` still makes a page.
    """
    _pageless(patch)
    _unexported(patch)


@pytest.fixture
def pageless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without page and the search for what predicts its classes without looking at the content."""
    _pageless(monkeypatch)


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without ONNX file."""
    _unexported(monkeypatch)


@pytest.fixture
def brief_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads solved for two decays in two folds: like any other, in a tenth of the time."""
    from fastcls.training import probe

    monkeypatch.setattr(probe, "DECAYS", probe.DECAYS[:2])
    monkeypatch.setattr(probe, "FOLDS", 2)


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without page, ONNX file and that search, for tests that need none of them."""
    unreport(monkeypatch)


def _of_module(leave_out: Callable[[pytest.MonkeyPatch], None]) -> Any:
    """A fixture that does so for all of a module's tests and the runs that they share."""

    @pytest.fixture(scope="module")
    def left_out() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            leave_out(patch)
            yield

    return left_out


unexported_module, unreported_module = _of_module(_unexported), _of_module(unreport)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, Callable[[Path], object]], Path]:
    """A folder of this name, made by the first of pytest's workers that asks for it, for all of them to read."""
    own = tmp_path_factory.getbasetemp()
    home = own if worker_id == "master" else own.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = home / "shared" / name, home / f"{name}.made"
        with FileLock(done.with_suffix(".lock")):
            if not done.exists():
                folder.mkdir(parents=True)
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def digits_run(once: Callable[..., Path], data_cache: None) -> Path:
    """One small but whole run of digits-cnn, shared by every test that reads a run."""

    def train(folder: Path) -> None:
        words = ["recipe", "digits-cnn", "--epochs", "3", "--limit", "60", "--filters", "16,32", "--seed", "3"]
        outcome = command(*words, "--out", folder / "digits")
        assert outcome.code == 0, outcome.output
        (folder / "digits" / "terminal.txt").write_text(outcome.output)

    return once("trained", train) / "digits"


def _unpacked(name: str, once: Callable[..., Path], a_folder: int | None = None) -> Path:
    """The archive's folder, or the first so many files of each of its folders."""
    archive = REAL / f"{name}.tar.xz"
    if not archive.is_file():
        pytest.skip(f"needs the real images of ../shared/data/{archive.name}")

    def unpack(folder: Path) -> None:
        taken: Counter[str] = Counter()

        def wanted(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
            taken[parent := member.name.rpartition("/")[0]] += member.isfile()
            return tarfile.data_filter(member, path) if a_folder is None or taken[parent] <= a_folder else None

        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter=wanted)

    return once(name, unpack)


@pytest.fixture(scope="session")
def cifar10(once: Callable[..., Path]) -> Path:
    """100 real images a class of CIFAR-10's training set, and of its test set."""
    return _unpacked("cifar10", once, 100)


@pytest.fixture(scope="session")
def cifar100(once: Callable[..., Path]) -> Path:
    """20 real images a class of CIFAR-100's training set, and of its test set."""
    return _unpacked("cifar100", once, 20)


@pytest.fixture(scope="session")
def imagenette(once: Callable[..., Path]) -> Path:
    """40 real photographs a class of Imagenette's train/, and of its val/."""
    return _unpacked("imagenette2-160", once, 40) / "imagenette2-160"


@pytest.fixture(scope="session")
def pets(once: Callable[..., Path]) -> Path:
    """The Oxford-IIIT Pet sample: 370 real photographs of 37 breeds."""
    return _unpacked("oxford-iiit-pet-sample", once)


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Oxford 102 Flower in small, as it is published: 4 images of each of 5 flowers, numbers in files of MATLAB's."""
    import numpy as np
    from PIL import Image
    from scipy.io import savemat

    root = tmp_path / "flowers-102"
    (root / "jpg").mkdir(parents=True)
    labels = np.repeat([1, 12, 51, 77, 102], 4)
    for number, label in enumerate(labels, 1):
        pixels = np.random.default_rng(number).integers(label, label + 100, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "jpg" / f"image_{number:05d}.jpg")
    of_each = np.arange(1, 21, dtype=np.uint16).reshape(5, 4)
    savemat(root / "imagelabels.mat", {"labels": labels[None].astype(np.uint8)})
    splits = {"trnid": of_each[:, :2], "valid": of_each[:, 2], "tstid": of_each[:, 3]}
    savemat(root / "setid.mat", {name: numbers.reshape(1, -1) for name, numbers in splits.items()})
    return root


@pytest.fixture
def browser(chromium: Any) -> Any:
    """Chromium with nothing in its logs from the tests before."""
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    return chromium


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Chromium, headless; every line of its console is kept."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("needs chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    flags = "headless=new no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update"
    for flag in [*flags.split(), "disable-sync", "disable-dev-shm-usage", "force-prefers-reduced-motion"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = webdriver.Chrome(options=options, service=Service(driver))
    yield session
    session.quit()
