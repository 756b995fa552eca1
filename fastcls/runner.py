"""Run a recipe from its data to its report."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls import __version__, runs, sources
from fastcls.errors import FastclsError, OutputError, RecipeError, TrainingError
from fastcls.loading import Prepared, prepared
from fastcls.request import Request
from fastcls.screen import Screen, escape

if TYPE_CHECKING:
    from fastcls.interpret import Interpretation
    from fastcls.train import History


class Terminated(BaseException):
    """SIGTERM arrived."""


def run(request: Request, screen: Screen) -> Path:
    """Train a recipe end to end; gives its run folder. The terminal shows what happens."""
    out = request.out or runs.new_folder(request.source.name)
    runs.check_writable(out)
    with _sigterm_raises(), prepared(request) as ready:
        return _Run(ready, out, screen).execute()


class _Run:
    """One run's folder and what goes into it."""

    def __init__(self, ready: Prepared, out: Path, screen: Screen) -> None:
        from fastcls import devices

        self.ready, self.out, self.screen = ready, out, screen
        self.learn, self.request = ready.learn, ready.request
        self.started = time.perf_counter()
        source, opts = self.request.source, self.request.options
        device = self.learn.dls.device
        self.record: dict[str, Any] = {
            "format": runs.FORMAT,
            "recipe": source.name,
            "title": source.title,
            "claim": source.claim,
            "command": self.request.command,
            "knobs": {stage: self.request.stage(stage) for stage in sources.STAGES},
            "options": {
                "seed": opts.seed,
                "limit": opts.limit,
                "device": device.type,
                "precision": self.learn.precision,
                "workers": devices.workers(),
                "cache_gb": opts.cache_gb,
                "fused": opts.fused,
                "channels_last": opts.channels_last,
                "compile": opts.compile,
                "accumulate": opts.accumulate,
                "clip": opts.clip,
                "patience": opts.patience,
                "keep": opts.keep,
            },
            "extra": dict(self.request.extra),
            "seed": opts.seed,
            "versions": versions(),
            "device": devices.describe(device),
            "status": "running",
            "reason": "",
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "notes": ready.notes,
        }

    def execute(self) -> Path:
        runs.atomic_write(self.out / "recipe.py", self.request.source.source)
        self._data()
        self._save()
        self._opening()
        try:
            self._decode()
            self._train()
            self._finish()
        except (KeyboardInterrupt, Terminated) as stop:
            self._stopped("interrupted", "Ctrl-C" if isinstance(stop, KeyboardInterrupt) else "SIGTERM")
            raise
        except BaseException as problem:
            reason = problem.message if isinstance(problem, FastclsError) else f"{type(problem).__name__}: {problem}"
            self._stopped("failed", reason)
            raise
        return self.out

    def _save(self, **changes: Any) -> None:
        self.record |= changes
        self.record["wall_seconds"] = round(time.perf_counter() - self.started, 2)
        runs.write_json(self.out / "run.json", self.record)

    def _stopped(self, status: str, reason: str) -> None:
        """Keep what there is: the record, the history so far and the log. The disk may be what failed."""
        with contextlib.suppress(OutputError):
            self._save(status=status, reason=reason)
            self.screen.print(f"{status}: {escape(reason.splitlines()[0])}. What there is: {escape(self.out)}")
            self.screen.write_log(self.out / "log.txt")

    def _data(self) -> None:
        """Write splits.csv and describe the data."""
        from fastcls.data import common_root, fingerprint, item_paths
        from fastcls.pixels import targets

        dls = self.learn.dls
        vocab = [str(name) for name in dls.vocab]
        rows: list[tuple[str, str, str]] = []
        for split, dataset in (("train", dls.train_ds), ("valid", dls.valid_ds)):
            labels = [vocab[label] for label in targets(dataset).tolist()]
            rows += zip(item_paths(dataset.items), [split] * len(labels), labels, strict=True)
        test = getattr(dls, "test_items", None)
        if test is not None:
            dataset = self._test_dl().dataset
            labels = [vocab[label] for label in targets(dataset).tolist()]
            rows += zip(item_paths(dataset.items), ["test"] * len(labels), labels, strict=True)
        self.root = common_root([path for path, _, _ in rows])
        rows = [(self._relative(path), split, label) for path, split, label in rows]
        counts = {split: sum(1 for row in rows if row[1] == split) for split in ("train", "valid", "test")}
        runs.write_csv(self.out / "splits.csv", ["path", "split", "label"], rows)
        self.record["data"] = {
            "root": str(self.root),
            "fingerprint": fingerprint(rows, self.root),
            "images": {split: n for split, n in counts.items() if n},
            "classes": len(vocab),
        }

    def _relative(self, path: str) -> str:
        absolute = Path(path).absolute()
        return absolute.relative_to(self.root).as_posix() if absolute.is_relative_to(self.root) else str(absolute)

    def _test_dl(self) -> Any:
        return self.learn.dls.test_dl(self.learn.dls.test_items, with_labels=True)

    def _opening(self) -> None:
        data, device = self.record["data"], self.record["device"]
        images = ", ".join(f"{n:,} {split}" for split, n in data["images"].items())
        self.screen.print(f"[b]{escape(self.request.source.title)}[/b]")
        self.screen.print(f"claim    {escape(self.request.source.claim)}", soft_wrap=True)
        self.screen.print(f"images   {images} in {data['classes']} classes ({escape(data['root'])})", soft_wrap=True)
        self.screen.print(
            f"device   {device['type']} ({escape(device['name'])}), {self.learn.precision} "
            f"({self.learn.precision_reason})",
            soft_wrap=True,
        )
        self._notes()
        self.screen.print()

    def _notes(self) -> None:
        for text in self.ready.notes[getattr(self, "shown", 0) :]:
            self.screen.print(f"note     {escape(text)}", soft_wrap=True)
        self.shown = len(self.ready.notes)

    def _decode(self) -> None:
        """Decode all images once, or find them decoded."""
        plan = getattr(self.learn.dls, "plan", None)
        if plan is None:
            return
        started = time.perf_counter()
        with self.screen.progress() as bar:
            task = bar.add_task("decoding the images, once", total=None, figures="")
            plan.prepare(lambda done, total: bar.update(task, completed=done, total=total))
        self.record["decode_seconds"] = round(time.perf_counter() - started, 2)

    def _train(self) -> None:
        import torch

        from fastcls import check, devices, summary, train
        from fastcls.data import item_paths

        fit, knobs = self.ready.recipe.fit, self.request.stage("fit")
        phases = train.rehearse(self.learn, fit, **knobs)
        history = train.History(self.out / "history.csv")
        best = train.KeepBest(history)
        progress = train.Progress(self.screen, history, phases)
        watchers = [history, best, progress, train.Guard()]
        patience = self.request.options.patience
        if patience is not None:
            watchers.append(train.EarlyStopping(train.criterion(self.learn), patience=patience))
        devices.forget_peak_memory(self.learn.dls.device)
        try:
            with train.quiet(self.learn), self.learn.added_cbs(watchers):
                fit(self.learn, **knobs)
        except torch.OutOfMemoryError as problem:
            raise TrainingError(
                f"The device ran out of memory: {str(problem).splitlines()[0]}",
                "Halve --bs, make --size smaller, or use --precision bf16.",
            ) from problem
        except (OSError, SyntaxError):  # a file that opens but does not decode: find out which
            check.refuse_broken(item_paths(self.learn.dls.train_ds.items), decode=True)
            check.refuse_broken(item_paths(self.learn.dls.valid_ds.items), decode=True)
            raise
        finally:
            progress.stop()
        if not history.rows:
            raise RecipeError(f"{self.request.source.path}: `fit` returned without training an epoch.")
        last, planned = len(history.rows), sum(phase.epochs for phase in phases)
        if last < planned:
            self.ready.notes.append(
                f"training stopped after {last} of {planned} epochs: {patience} without a better one."
            )
        parameters, trained = summary.count(self.learn.model)
        self.record["network"] = {"parameters": parameters, "trained_parameters": trained}
        self.record["train_seconds"] = round(sum(row["seconds"] for row in history.rows), 3)
        self.record["peak_memory_bytes"] = devices.peak_memory(self.learn.dls.device)
        chosen = self.request.options.keep == "best" and best.epoch > 0
        if chosen:
            best.restore(self.learn)
            what = (
                f"These are the weights of epoch {best.epoch} of {last}, which had the best {best.criterion} on valid."
            )
            self.record["weights"] = f"{what} Chosen on it, its valid figures lean optimistic."
        else:
            self.record["weights"] = f"These are the weights of the last epoch, {last}."
        self.record["best_epoch"] = best.epoch if chosen else last
        self.record["speed"] = self._speed(history)

    def _speed(self, history: History) -> dict[str, float]:
        """Images a second of the fastest epoch, and how much of the device's measured peak that is."""
        from fastcls import export, throughput

        rate = max(row["images_per_second"] for row in history.rows)
        flops = throughput.flops_per_image(self.learn.model, export.input_example(self.learn))
        peak = throughput.matmul_peak(self.learn.dls.device, self.learn.precision)
        return {
            "images_per_second": rate,
            "flops_per_image": flops,
            "peak_flops_per_second": round(peak),
            "utilisation": round(rate * flops / peak, 4),
        }

    def _finish(self) -> None:
        """One pass a split, and every file made from it."""
        from fastcls import export, report, step
        from fastcls.interpret import Interpretation
        from fastcls.predictions import write_predictions
        from fastcls.train import quiet

        # in full precision, so that the figures are those of the network that `predict` runs
        with quiet(self.learn), self.learn.removed_cbs(step.precision_callbacks(self.learn)):
            passes = {"valid": Interpretation.from_learner(self.learn)}
            if getattr(self.learn.dls, "test_items", None) is not None:
                passes["test"] = Interpretation.from_learner(self.learn, dl=self._test_dl())
        figures = {split: interpretation.figures() for split, interpretation in passes.items()}
        runs.write_json(self.out / "metrics.json", figures)
        write_predictions(self.out / "predictions.csv", passes, self._relative)
        build = {"recipe": self.request.source.name, "knobs": self.record["knobs"]["get_learner"]}
        export.save(self.learn, self.out, build)
        valid = passes["valid"]
        self.record["onnx_difference"] = export.verify(self.out, valid.paths(), valid.preds.numpy())
        self._save(status="done")
        report.write(self.out)
        self._closing(figures, valid)
        self._save()
        self.screen.write_log(self.out / "log.txt")

    def _closing(self, figures: Mapping[str, Any], valid: Interpretation) -> None:
        self.screen.print()
        for split, values in figures.items():
            accuracy, loss, f1 = values["accuracy"], values["loss"], values["macro_f1"]
            self.screen.print(
                f"[b]{split:8s} accuracy {accuracy['value']:.4f}[/b]  (95 %: {accuracy['low']:.4f} to "
                f"{accuracy['high']:.4f}, n = {values['n']:,})  loss {loss['value']:.4f}  macro F1 {f1['value']:.4f}",
                soft_wrap=True,
            )
        speed = self.record["speed"]
        self.screen.print(
            f"speed    {speed['images_per_second']:,.0f} images/s in training, {speed['utilisation']:.1%} of the "
            f"{speed['peak_flops_per_second'] / 1e12:,.2f} TFLOP/s that a matrix product reaches here",
            soft_wrap=True,
        )
        confused = valid.most_confused()[:3]
        if confused:
            pairs = "; ".join(f"{a} taken for {b} ({n})" for a, b, n in confused)
            self.screen.print(f"confused {escape(pairs)}", soft_wrap=True)
        self.screen.print(f"kept     {escape(self.record['weights'])}", soft_wrap=True)
        self._notes()
        self.screen.print(f"run      {escape(self.out)}   report: {escape(self.out / 'report.html')}", soft_wrap=True)
        self.screen.print(f"next     fastcls predict {escape(self.out)} PHOTOS -o predictions.csv", soft_wrap=True)


def versions() -> dict[str, str]:
    """The versions that a run depends on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "fastcls": __version__}
    for package in ("fastai", "torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "onnxruntime"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does, its folder in order."""

    def terminate(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
