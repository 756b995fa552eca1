"""The course of training: its phases, the epoch that was kept, and a careful verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from fastcls.runfolder import runs

FEWEST = 3  # epochs below which the curves say nothing about fit
RISE = 0.05  # a validation loss this far above its lowest counts as risen
FEW_STEPS = 300  # optimiser steps; below, "no over-fitting" may only mean that hardly anything was learned
LEARNED = 0.25  # of the loss of an even guess: a training loss above this is far from learned
FALL = 0.02  # … and this far below the epoch before as still falling


@dataclass(frozen=True)
class Phase:
    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Verdict:
    """A short answer, its reason, and how good the news is ('good', 'warn' or 'open')."""

    answer: str
    reason: str
    mood: str


def phases(history: pd.DataFrame) -> list[Phase]:
    """Runs of epochs under one name, in order."""
    found: list[Phase] = []
    for epoch, name in zip(history["epoch"].astype(int), history["phase"].astype(str), strict=True):
        if found and found[-1].name == name and epoch > found[-1].last:
            found[-1] = Phase(name, found[-1].first, epoch)
        else:
            found.append(Phase(name, epoch, epoch))
    return found


def verdict(history: pd.DataFrame, classes: int) -> Verdict:
    """Over-fitting, under-fitting or neither, as far as the two losses can tell."""
    if history.empty:
        return Verdict("Nothing to judge", "no epoch is recorded.", "open")
    valid_all = history["valid_loss"]
    blown = history[(history["train_loss"].map(math.isinf)) | valid_all.map(math.isinf)]
    if not blown.empty:
        return Verdict("Diverged", f"a loss became infinite in epoch {int(blown['epoch'].iloc[0])}.", "warn")
    probed = history["phase"] == runs.PROBE
    if probed.all():
        return Verdict("Linear probe", "only the head was fitted; no weight of the network itself was trained.", "good")
    history = history[~probed]
    rows = history[history["train_loss"].notna() & history["valid_loss"].notna()]
    lost = len(history) - len(rows)
    if len(rows) < FEWEST:
        had = "epoch has" if len(rows) == 1 else "epochs have"
        reason = f"{len(rows)} {had} both losses; it takes at least {FEWEST} to see a direction."
        return Verdict("Too few epochs to tell", reason, "open")
    epochs = rows["epoch"].astype(int).tolist()
    train, valid = rows["train_loss"].tolist(), rows["valid_loss"].tolist()
    low = min(range(len(valid)), key=valid.__getitem__)
    result = _judge(epochs, train, valid, low, classes, _still_right(rows))
    steps = rows["step"].max()
    if result.mood == "good" and _hardly_trained(steps, train, classes):
        reason = (
            f"{steps:.0f} steps are few, and the training loss was still at {train[-1]:.3f} after the last epoch, "
            f"from {train[-2]:.3f} the epoch before. Train for more epochs, or with smaller batches."
        )
        return Verdict("Hardly trained", reason, "warn")
    if lost:
        aside = f" ({lost} of {len(history)} epochs lack a loss and were left out.)"
        return Verdict(result.answer, result.reason + aside, result.mood)
    return result


def _hardly_trained(steps: float, train: list[float], classes: int) -> bool:
    """Few steps, after which the training images are not learned yet and the loss on them is still falling."""
    guess = math.log(classes) if classes > 1 else math.inf
    return steps < FEW_STEPS and (train[-1] > LEARNED * guess or train[-1] < 0.9 * train[-2])


def _judge(
    epochs: list[int], train: list[float], valid: list[float], low: int, classes: int, still_right: bool
) -> Verdict:
    last = len(valid) - 1
    at, end = f"{valid[low]:.3f}", f"{valid[last]:.3f}"
    guess = math.log(classes) if classes > 1 else 0.0
    if valid[last] > valid[low] * (1 + RISE) and last > low:
        if train[last] < train[low]:
            reason = (
                f"the validation loss was lowest in epoch {epochs[low]} ({at}) and rose to {end} while the "
                f"training loss went on falling, from {train[low]:.3f} to {train[last]:.3f}."
            )
            if still_right:
                reason += " The accuracy held: the network grew surer of its mistakes rather than making more."
            return Verdict(f"Over-fitting after epoch {epochs[low]}", reason, "warn")
        reason = (
            f"the validation loss rose from {at} in epoch {epochs[low]} to {end}, but the training loss rose "
            "too, which points at the learning rate sooner than at over-fitting."
        )
        return Verdict("Unsteady", reason, "warn")
    if guess and train[last] > 0.7 * guess and valid[last] > 0.7 * guess:
        reason = (
            f"both losses ({train[last]:.3f} in training, {end} in validation) ended close to {guess:.3f}, "
            f"that of an even guess among {classes} classes."
        )
        return Verdict("Under-fitting", reason, "warn")
    if low == last and valid[last] < valid[last - 1] * (1 - FALL):
        reason = (
            f"the validation loss was still falling in the last epoch, from {valid[last - 1]:.3f} to {end}. "
            "More epochs may help; a schedule that ends on small steps makes any last epoch look like this."
        )
        return Verdict("No over-fitting seen", reason, "good")
    gap = valid[last] / train[last] if train[last] > 0 else math.inf
    near = f"within {RISE * 100:.0f}\u202f% of its lowest ({at}, epoch {epochs[low]})"
    reason = f"the validation loss ended at {end}, {near}"
    if gap > 1.5:
        reason += f". It is well above the training loss ({train[last]:.3f}), a gap that did no harm so far."
        return Verdict("No harmful over-fitting seen", reason, "good")
    return Verdict("No over-fitting seen", f"{reason}, and the training loss at {train[last]:.3f}.", "good")


def _still_right(rows: pd.DataFrame) -> bool:
    """Whether the accuracy of the last epoch is about the best there was."""
    if "accuracy" in rows:
        right = rows["accuracy"]
    elif "error_rate" in rows:
        right = 1 - rows["error_rate"]
    else:
        return False
    return bool(right.notna().all() and right.iloc[-1] >= right.max() - 0.005)
