"""One pass over a split answers everything: figures, confusions, top losses, doubtful labels, where it looked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.data.all import DataLoader
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner, Recorder
from matplotlib.axes import Axes

from fastcls.data import splitting, target
from fastcls.data.pixels import files
from fastcls.evaluation import gradcam, judging, plots, suspects
from fastcls.runfolder.target import SINGLE, Target


def activation(loss_func: Any, target: Target = SINGLE) -> Callable[[torch.Tensor], torch.Tensor]:
    """Outputs (n, classes) to probabilities: as the loss itself says, else softmax, or sigmoids of several labels.

    fastai takes the outputs of a network with any other loss, torch's CrossEntropyLoss among them, for probabilities.
    """
    own = getattr(loss_func, "activation", None)
    if own is not None:
        return own
    return torch.sigmoid if target.several else partial(torch.softmax, dim=-1)


def decoded_pixels(dl: DataLoader, batch: tuple[torch.Tensor, ...]) -> np.ndarray:
    """A batch's images as they are to be seen, normalisation undone: (n, H, W, channels), 0 to 255."""
    images = dl.decode(batch)[0].as_subclass(torch.Tensor).cpu()
    levels = images * 255 if images.is_floating_point() else images  # fastai's IntToFloatTensor decodes to 0 … 255
    return levels.clamp(0, 255).round().to(torch.uint8).movedim(1, 3).numpy()


@contextlib.contextmanager
def recorder_kept(learn: Learner) -> Iterator[None]:
    """The losses and metrics of the last fit, which fastai's recorder forgets with every evaluation."""
    recorder = getattr(learn, "recorder", None)
    before = {name: getattr(recorder, name) for name in Recorder._stateattrs if hasattr(recorder, name)}
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(recorder, name, value)


def inference_pass(
    learn: Learner, dl: DataLoader, act: Any = None, reorder: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (n, classes) and targets on the CPU, in the order of the images, or as `dl` gives them."""
    with recorder_kept(learn):
        act = act or activation(learn.loss_func, target.of(learn.dls))
        preds, targs = learn.get_preds(dl=dl, act=act, reorder=reorder)
    return torch.as_tensor(preds).float().cpu(), torch.as_tensor(targs).long().cpu()


class Interpretation(ClassificationInterpretation):
    """fastai's ClassificationInterpretation, with the network run once instead of once a question.

    `preds` (n, classes) are probabilities, `targs` and `decoded` (n,) class indices, or (n, classes) of several labels
    an image, `losses` (n,) the cross-entropy of each image in nats, whatever loss the network was trained with; all on
    the CPU.
    """

    def __init__(
        self, learn: Learner, dl: DataLoader, preds: torch.Tensor, targs: torch.Tensor, act: Any = None
    ) -> None:
        self.judge = judging.of(target.of(learn.dls))
        losses = torch.from_numpy(self.judge.losses(preds.numpy(), targs.numpy())).float()
        super().__init__(learn, dl, losses, act)
        self.preds, self.targs = preds, targs
        self.decide(None)

    def decide(self, thresholds: np.ndarray | None) -> None:
        """Predict from these probabilities (labels,) on; what one class an image is predicted by is fixed."""
        self.thresholds = thresholds
        self.decoded = torch.from_numpy(self.judge.decide(self.preds.numpy(), thresholds))

    @classmethod
    def from_learner(
        cls, learn: Learner, ds_idx: int = 1, dl: DataLoader | None = None, act: Any = None
    ) -> Interpretation:
        """Run the network over `dl`, or over split `ds_idx` of the learner's loaders, once."""
        dl = dl or learn.dls[ds_idx].new(shuffle=False, drop_last=False)
        return cls(learn, dl, *inference_pass(learn, dl, act), act)

    def __getitem__(self, idxs: Any) -> tuple[Any, ...]:
        """Inputs, preds, targs, decoded and losses at `idxs`; the images are read again, the network is not run."""
        picked = torch.as_tensor(idxs).flatten().tolist()
        items = splitting.picked(self.dl.items, picked)
        inputs = torch.cat([batch[0] for batch in self.learn.dls.test_dl(items)])
        return inputs, self.preds[picked], self.targs[picked], self.decoded[picked], self.losses[picked]

    def confusion_matrix(self) -> Any:
        """Counts (classes × classes), rows are true classes; of several labels, those missed, columns seen instead."""
        return self.judge.confusion(self.targs.numpy(), self.decoded.numpy(), len(self.vocab))

    def most_confused(self, min_val: int = 1) -> list[tuple[str, str, int]]:
        """(true class, predicted class, count) of the mistakes made at least `min_val` times, most first.

        Of as many mistakes each, the costlier ones come first.
        """
        if self.judge.target.several:
            counts = self.confusion_matrix()
            np.fill_diagonal(counts, 0)
            at = np.argwhere(counts >= max(1, min_val))
            order = np.argsort(-counts[tuple(at.T)], kind="stable")
            return [(self.vocab[i], self.vocab[j], int(counts[i, j])) for i, j in at[order].tolist()]
        wrong = self.targs != self.decoded
        both = torch.stack([self.targs, self.decoded])[:, wrong]
        pairs, which, counts = torch.unique(both, dim=1, return_inverse=True, return_counts=True)
        costs = torch.bincount(which, self.losses[wrong].as_subclass(torch.Tensor), len(counts))
        order = np.lexsort((-costs.numpy(), -counts.numpy()))
        found = [(*(self.vocab[i] for i in pairs[:, at].tolist()), int(counts[at])) for at in order]
        return [pair for pair in found if pair[2] >= min_val]

    def print_classification_report(self) -> None:
        """Print scikit-learn's classification report."""
        from sklearn.metrics import classification_report

        names = [str(name) for name in self.vocab]
        kwargs = {"labels": list(range(len(names))), "target_names": names, "zero_division": 0}
        print(classification_report(self.targs.int(), self.decoded.int(), **kwargs))

    def plot_confusion_matrix(
        self,
        normalize: bool = False,
        title: str = "Confusion matrix",
        cmap: str = "Blues",
        norm_dec: int = 2,
        plot_txt: bool = True,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Axes:
        """Draw the matrix on `ax`, or on a new figure that `kwargs` describe; `normalize` divides by the row's sum."""
        counts = self.confusion_matrix()
        if normalize:
            counts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        (ax,) = plots.grid(1, None if ax is None else [ax], **{"figsize": (5, 5), **kwargs})
        plots.confusion(
            ax, counts, list(self.vocab), cmap, (f".{norm_dec}f" if normalize else "d") if plot_txt else None
        )
        ax.set_title(title, parse_math=False)
        return ax

    def plot_top_losses(
        self,
        k: int | Sequence[int] = 9,
        largest: bool = True,
        heat: bool = False,
        axs: Sequence[Axes] | None = None,
        **kwargs: Any,
    ) -> list[Axes]:
        """Draw `k` images, hardest first, or those at the indices `k`; `heat` lays Grad-CAM of the answer over them."""
        rows = list(map(int, self.top_losses(k, largest)[1])) if isinstance(k, int) else list(k)
        lines = [
            f"{self._said(self.decoded[i])} {self.preds[i].max():.0%}, is {self._said(self.targs[i])}\n"
            f"loss {self.losses[i]:.2f}"
            for i in rows
        ]
        return self._pictures(rows, lines, heat, axs, **kwargs)

    def suspects(self) -> pd.DataFrame:
        """Labels that the network contradicts, clearest first: row, file, label, looks_like and their probabilities.

        Confident learning (Northcutt et al. 2021); for images that the network was not trained on.
        """
        p, labels = self.preds.numpy(), self.targs.numpy()
        rows, classes = np.nonzero(p > 1e-6)
        own = p[np.arange(len(p)), labels]
        found, _ = suspects.suspects(labels, rows, classes, p[rows, classes], own, p.shape[1])
        paths = self.paths()
        table = [
            (
                *(one.row, paths[one.row], self.vocab[labels[one.row]], self.vocab[one.looks_like]),
                *(one.of_label, one.of_other, one.wrong),
            )
            for one in found
        ]
        columns = ["row", "file", "label", "looks_like", "probability_of_label", "probability_of_other"]
        return pd.DataFrame(table, columns=[*columns, "probability_wrong"])

    def plot_suspects(self, k: int = 9, axs: Sequence[Axes] | None = None, **kwargs: Any) -> list[Axes]:
        """Draw the `k` images whose labels are doubted most."""
        table = self.suspects().head(k)
        lines = [
            f"label {plots.text(one.label)}\nlooks like {plots.text(one.looks_like)}" for one in table.itertuples()
        ]
        return self._pictures(table["row"].tolist(), lines, False, axs, **kwargs)

    def plot_reliability(self, temperature: float | None = None, ax: Axes | None = None, **kwargs: Any) -> Axes:
        """Draw accuracy over confidence, and the same with the logits divided by `temperature`."""
        (ax,) = plots.grid(1, None if ax is None else [ax], **{"figsize": (4.5, 4), **kwargs})
        p = {"as trained": self.preds.numpy()}
        if temperature is not None:
            p["after scaling"] = self.judge.target.softened(self.preds.numpy(), temperature)
        if self.judge.target.several:  # each label of each image, by its probability
            plots.reliability(ax, {name: one.ravel() for name, one in p.items()}, self.targs.numpy().ravel() > 0)
        else:
            plots.reliability(ax, {name: one.max(1) for name, one in p.items()}, (self.decoded == self.targs).numpy())
        ax.set(xlabel="confidence", ylabel="accuracy")
        ax.legend(loc="upper left", frameon=False)
        return ax

    def heatmaps(self, rows: Sequence[int], classes: Sequence[int] | None = None) -> torch.Tensor | None:
        """Grad-CAM (n, h, w), 0 to 1, of what speaks for `classes` (the predictions) in the images at `rows`.

        None for a network without feature maps, as a vision transformer.
        """
        inputs = self[rows][0].as_subclass(torch.Tensor).to(self.learn.dls.device)
        return gradcam.heatmaps(self.learn.model, inputs, self.explained(rows) if classes is None else classes)

    def explained(self, rows: Sequence[int]) -> list[int]:
        """The class that the heat map of each image speaks of: the predicted one; of several, what costs it most."""
        parts = (part[rows].numpy() for part in (self.preds, self.targs, self.decoded))
        return self.judge.explained(*parts).tolist()

    def _said(self, label: torch.Tensor) -> str:
        """A label or prediction on an axis."""
        (text,) = self.judge.texts(label[None].numpy(), [str(name) for name in self.vocab])
        return plots.text(text or "none")

    def _pictures(
        self, rows: Sequence[int], lines: Sequence[str], heat: bool, axs: Sequence[Axes] | None, **kwargs: Any
    ) -> list[Axes]:
        axes = plots.grid(len(rows), axs, **kwargs)
        if rows:
            maps = self.heatmaps(rows) if heat else None
            pixels = decoded_pixels(self.dl, (self[rows][0], self.targs[rows]))
            plots.pictures(axes, pixels, lines, None if maps is None else maps.numpy())
        return axes

    def figures(self, temperature: float | None = None, codes: np.ndarray | None = None) -> dict[str, Any]:
        """Those of metrics.json, with their 95 % intervals and n: accuracy, macro F1, loss, Brier score, ECE …

        codes (n,): the groups of the images, over which the intervals are.
        """
        names = [str(name) for name in self.vocab]
        return self.judge.figures(self.preds.numpy(), self.targs.numpy(), names, self.thresholds, temperature, codes)

    def temperature(self) -> float:
        """What the logarithms of the probabilities are divided by to calibrate them; fit it on the validation split."""
        return self.judge.temperature(self.preds.numpy(), self.targs.numpy())

    def paths(self) -> list[str]:
        """The file of each image, in the order of `preds`."""
        return files(self.dl.dataset)
