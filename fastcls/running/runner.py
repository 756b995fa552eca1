"""Run a recipe from its data to its report, or continue a run that was interrupted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls.errors import Diverged, FastclsError, OutputError, RecipeError, UsageError
from fastcls.machine import ranks
from fastcls.machine.screen import Screen
from fastcls.machine.stop import Ended, Stop, Stopped
from fastcls.runfolder import recorded, register, runs, splits
from fastcls.running import assist
from fastcls.running.loading import Prepared, prepared
from fastcls.running.messages import Messages
from fastcls.settings import shell
from fastcls.settings.request import Request

if TYPE_CHECKING:
    from fastai.callback.core import Callback

    from fastcls.training.checkpoints import Checkpoint


def run(request: Request, screen: Screen, watchers: Sequence[Callback] = (), of_a_series: bool = False) -> Path:
    """Train a recipe end to end; gives its run folder. The terminal shows what happens.

    watchers: further callbacks of training; one that raises stop.Ended ends the run. of_a_series: it is no `last`, and
    where it is a fold it has no page, which `report` makes.
    """
    out = request.out or runs.new_folder(request.source.name)
    runs.check_writable(out)
    if request.options.checkpoints:
        from fastcls.training import mirror

        mirror.refuse_used(request.options.checkpoints)
    with assist.joined(assist.START) as stop, prepared(request) as ready, runs.locked(out):
        runs.check_writable(out)  # another run may have begun, and ended, while this one was prepared
        if not of_a_series and ranks.first():
            register.add(out)
        page = not (of_a_series and request.options.fold)
        return _Run(ready, out, screen, stop, watchers=watchers, page=page).execute()


def resume(
    folder: Path,
    screen: Screen,
    extend: int = 0,
    trust: bool = False,
    watchers: Sequence[Callback] = (),
    path: str = "",
    patience: float = 0,
) -> Path:
    """Continue a run that was interrupted, or train a finished one `extend` epochs more; gives its folder.

    trust: run the recipe.py of the folder, where the recipe of that name is no longer the same. path: where the images
    are now, if they were moved; they must be the same. patience: seconds to wait for another process that still trains
    into the folder.
    """
    from fastcls.training.checkpoints import Store

    folder = folder.absolute()
    runs.read_json(folder / "run.json")  # which refuses what is no run folder before it is locked
    with assist.joined() as stop, runs.locked(folder, patience):
        before = _caught_up(folder)
        _refuse_to_resume(folder, before, extend)
        again = recorded.request(folder, trust)
        if path:
            again = recorded.moved(again, path)
        if extend:  # so many, whatever the run was asked for
            again.options = replace(again.options, auto_epochs=False)
        found, refused = Store(folder).newest()
        if extend and found is None:
            raise OutputError(f"{folder} has no checkpoint to continue training from.", "Start a new run.")
        assist.announce(assist.continued(folder, again))
        with recorded.entered(before), prepared(again) as ready:
            ready.notes += refused
            return _Run(ready, folder, screen, stop, before, found, extend, watchers).execute()


def _caught_up(folder: Path) -> dict[str, Any]:
    """A run's record; where --checkpoints has a newer checkpoint, both are that one's."""
    record = runs.read_json(folder / "run.json")
    if address := record.get("options", {}).get("checkpoints"):
        from fastcls.training import mirror

        if mirror.fetch(address, folder):
            return runs.read_json(folder / "run.json")
    return record


def _refuse_to_resume(folder: Path, before: Mapping[str, Any], extend: int) -> None:
    done = before.get("status") == "done"
    if done and not extend:
        raise UsageError(
            f"{folder} is finished; there is nothing to resume.",
            f"To train it longer:  {shell.command('resume', folder, '--extend-epochs', 'N')}",
        )
    if not done and extend:
        raise UsageError(f"{folder} is not finished.", f"Resume it first:  {shell.command('resume', folder)}")


class _Run:
    """One run's folder and what goes into it."""

    def __init__(
        self,
        ready: Prepared,
        out: Path,
        screen: Screen,
        stop: Stop,
        before: Mapping[str, Any] | None = None,
        found: Checkpoint | None = None,
        extend: int = 0,
        watchers: Sequence[Callback] = (),
        page: bool = True,
    ) -> None:
        from fastcls.plugins.tracking.trackers import Tracking
        from fastcls.running import record

        self.ready, self.out, self.screen, self.stop = ready, out, screen, stop
        self.learn, self.request = ready.learn, ready.request
        self.before, self.found, self.watchers, self.page = before or {}, found, watchers, page
        self.tracking = Tracking(self.request.options.track, out, self.before)
        self.started = time.perf_counter()
        self.images = record.Images(self.learn)
        self.record = record.of(self.request, self.learn, ready.notes)
        self.record["data"] = self.images.describe()
        self.extensions = [*self.before.get("extensions", []), *([extend] if extend else [])]
        if before is not None:
            record.refuse_other_images(before.get("data") or {}, self.record["data"], out, self.images.rows)
            if text := record.other_surroundings(before, self.record):
                ready.notes.append(text)
            kept = ("started", "folder", "tracking")
            self.record |= {name: before[name] for name in kept if name in before}
            self.record["resumed"] = [*before.get("resumed", []), runs.now()]
        if self.extensions:
            self.record["extensions"] = self.extensions
        self.messages = Messages(ready.notes, out, screen, self.record)
        self.saved: Callable[[Path], object]

    def execute(self) -> Path:
        from fastcls.running import faults
        from fastcls.training import mirror

        faults.require_space(self.learn, self.out)
        runs.atomic_write(self.out / "recipe.py", self.request.source.source)
        splits.write(self.out, self.images.rows, self.images.groups)
        splits.write_slices(self.out, self.images.rows, self.images.slices)
        self._save()
        why = f" ({self.learn.precision_reason})" if self.learn.precision_reason else ""
        self.messages.opening(f"{self.learn.precision}{why}")
        try:
            self._save(tracking=self.tracking.start(self.record))
            with (
                faults.translated(self.learn, self.request.stage("get_learner") | self.request.stage("fit"), self.out),
                mirror.sending(self.request.options.checkpoints, self.out, self._note) as self.saved,
            ):
                self._decode()
                faults.require_space(self.learn, self.out)  # decoding may have taken it
                if not self.before:
                    self._check()
                self._train()
                self._finish()
        except (KeyboardInterrupt, Stopped) as stop:
            self._stopped("interrupted", str(stop) or "Ctrl-C")
            raise
        except Ended as end:
            self._stopped(end.status, str(end), again=False)
            raise
        except BaseException as problem:
            reason = problem.message if isinstance(problem, FastclsError) else f"{type(problem).__name__}: {problem}"
            self._stopped("failed", reason, again=not isinstance(problem, Diverged))
            raise
        return self.out

    def _note(self, text: str) -> None:
        """Say what is worth knowing at once."""
        self.ready.notes.append(text)
        self.messages.notes()

    def _save(self, **changes: Any) -> None:
        self.record |= changes
        spent = time.perf_counter() - self.started + self.before.get("wall_seconds", 0)
        self.record["wall_seconds"] = round(spent, 2)
        runs.write_json(self.out / "run.json", self.record)

    def _stopped(self, status: str, reason: str, again: bool = True) -> None:
        """Keep what there is: the record, the history so far and the log. The disk may be what failed.

        again: whether going on could end otherwise; a loss that is not finite comes back to the bit.
        """
        with contextlib.suppress(OutputError):
            self._save(status=status, reason=reason)
        self.messages.stopped(status, reason, again)
        with contextlib.suppress(OutputError):
            self.tracking.stop(status)
            self.messages.notes()
            self.screen.write_log(self.out / "log.txt")

    def _decode(self) -> None:
        """Decode all images once, or find them decoded."""
        plan = getattr(self.learn.dls, "plan", None)
        if plan is not None:
            with self.messages.timed("decode_seconds", "decoding the images, once") as progress:
                plan.prepare(progress)

    def _check(self) -> None:
        """A quick look at what is wrong with the images; under --limit the sizes of classes say nothing."""
        from fastcls.audit.check_record import precheck

        with self.messages.timed("check_seconds", "checking the images") as progress:
            self.ready.notes += precheck(self.out, self.request.options.limit is None, progress)
        self.messages.notes()

    def _train(self) -> None:
        from fastcls.machine import devices
        from fastcls.models import summary
        from fastcls.runfolder import predictions
        from fastcls.running import baseline, record
        from fastcls.training import losses
        from fastcls.training import resume as training

        if ranks.world() > 1:
            from fastcls.training import parallel

            parallel.note_on_norms(self.learn)
            self.messages.notes()
        self.probe = baseline.KeepBaseline(self.out / predictions.BASELINE, self.images.relative)
        with assist.shares(self.learn):
            knobs = self._knobs()
        assist.begin(self.images.agreed(), knobs, self.found, self.extensions)
        if self.found is not None:
            self.messages.resumed(int(self.found.state["callbacks"]["History#0"]["step"]), self.found.folder)
        resumed = self.found, self.extensions
        watchers = [self.probe, *self.watchers, *self.tracking.callbacks()]
        where = self.out, self.screen, self.stop
        history, best, planned = training.fit(
            self.learn, self.ready.recipe.fit, knobs, *where, *resumed, watchers, self._extended, self.saved
        )
        if not history.rows:
            raise RecipeError(f"{self.request.source.path}: `fit` returned without training an epoch.")
        last, probed = history.trained, history.trained < len(history.rows)
        if len(history.rows) < planned:
            patience = self.request.options.patience
            self.ready.notes.append(f"early stopping after {last} of {planned - probed} epochs (patience {patience}).")
        self.record["network"] = {
            "parameters": summary.count(self.learn.model)[0],
            "trained_parameters": max(row["trained_parameters"] for row in history.rows),
        }
        self.record["train_seconds"] = round(sum(row["seconds"] for row in history.rows), 3)
        self.record["loss"] = losses.bounds(self.learn)
        self.record["peak_memory_bytes"] = devices.peak_memory(self.learn.dls.device)
        chosen = self.request.options.keep == "best" and best.epoch is not None
        if not last:
            self.record["weights"] = "The weights are those of the linear probe; nothing else was trained."
        elif chosen:
            best.restore(self.learn)
            what = f"The weights are those of epoch {best.epoch} of {last}, the best by {best.criterion} on valid."
            if not best.epoch:
                which = "the linear probe, before training"
                what = f"The weights are those of {which}: no epoch is clearly better on valid."
            if len(history.rows) > 1:
                self.record["weights"] = f"{what} Because of this choice, the valid metrics are optimistic."
            else:
                self.record["weights"] = f"The weights are those of epoch {best.epoch}, the only one."
        else:
            self.record["weights"] = f"The weights are those of the last epoch, {last}."
        self.record["best_epoch"] = best.epoch if chosen else last
        if last:  # the probe's passes are no training
            self.record["speed"] = record.speed(self.learn, history)

    def _knobs(self) -> dict[str, Any]:
        """Those of `fit`; with a time to keep to, as many epochs as fit into it, which a resumed run takes over."""
        from fastcls.training import epochs

        knobs, seconds = self.request.stage("fit"), self.request.options.seconds
        if seconds is not None:
            knobs["epochs"], each = epochs.within(self.learn, self.ready.recipe.fit, knobs, seconds)
            self.record["knobs"]["fit"]["epochs"] = knobs["epochs"]
            self.record["options"]["seconds"] = None
            self._save(epochs_chosen={"training_seconds": seconds, "epoch_seconds": round(each, 6)})
            what = f"--epochs {knobs['epochs']}: an epoch takes about {shell.lasting(each)} here"
            self.ready.notes.append(f"{what}, and the time budget is {shell.lasting(seconds)}.")
            self.messages.notes()
        return knobs

    def _extended(self, count: int) -> None:
        """A further extension begins, which a resumed run has to know of."""
        self.extensions.append(count)
        self._save(extensions=self.extensions)

    def _finish(self) -> None:
        """One pass a split, and every file made from it."""
        from fastcls.audit import check_record
        from fastcls.reports import build as report
        from fastcls.running.evaluation import evaluate
        from fastcls.training.checkpoints import Store

        build = {"recipe": self.request.source.name, "knobs": self.record["knobs"]["get_learner"]}
        seen = check_record.leaked(self.out, self.images.rows, self.images.groups)
        known = self.probe.known(self.learn)
        found = evaluate(self.learn, self.out, build, self.images.relative, self.images.groups, seen, known)
        self.record["onnx_difference"] = found.onnx_difference
        Store(self.out).keep_newest()
        self._save()
        if self.page:
            report.write(self.out, status="done")
        self.messages.closing(found.figures, found.answers)
        self.screen.write_log(self.out / "log.txt")
        self._save(status="done")  # all is there; a run that is killed before is resumed from its last checkpoint
        self.tracking.finish(found.answers["valid"])
        self.messages.notes()
        self.tracking.show(self.screen)
        self.messages.next()
        self._save()
        self.screen.write_log(self.out / "log.txt")
