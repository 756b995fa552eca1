"""One pass over a split answers everything: figures, tables, confusions, top losses."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import torch
from fastai.data.all import DataLoader
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner
from torch.nn import functional as F

from fastcls import calibration, metrics
from fastcls.data import item_paths


class Interpretation(ClassificationInterpretation):
    """fastai's ClassificationInterpretation, with the network run once instead of once a question.

    `preds` (n, classes) are probabilities, `targs` and `decoded` (n,) class indices, `losses` (n,) the
    cross-entropy of each image in nats, whatever loss the network was trained with; all on the CPU.
    """

    def __init__(
        self, learn: Learner, dl: DataLoader, preds: torch.Tensor, targs: torch.Tensor, act: Any = None
    ) -> None:
        losses = F.nll_loss(preds.clamp_min(1e-12).log(), targs, reduction="none")
        super().__init__(learn, dl, losses, act)
        self.preds, self.targs, self.decoded = preds, targs, preds.argmax(1)

    @classmethod
    def from_learner(
        cls, learn: Learner, ds_idx: int = 1, dl: DataLoader | None = None, act: Any = None
    ) -> Interpretation:
        """Run the network over `dl`, or over split `ds_idx` of the learner's loaders, once."""
        dl = dl or learn.dls[ds_idx].new(shuffle=False, drop_last=False)
        preds, targs = learn.get_preds(dl=dl, act=act)
        return cls(learn, dl, torch.as_tensor(preds).float().cpu(), torch.as_tensor(targs).long().cpu(), act)

    def __getitem__(self, idxs: Any) -> tuple[Any, ...]:
        """Inputs, preds, targs, decoded and losses at `idxs`; the images are read again, the network is not run."""
        picked = torch.as_tensor(idxs).flatten().tolist()
        items = self.dl.items.iloc[picked] if hasattr(self.dl.items, "iloc") else [self.dl.items[i] for i in picked]
        inputs = torch.cat([batch[0] for batch in self.learn.dls.test_dl(items, with_labels=True)])
        return inputs, self.preds[picked], self.targs[picked], self.decoded[picked], self.losses[picked]

    def confusion_matrix(self) -> Any:
        """Counts (classes × classes), rows are true classes."""
        return metrics.confusion(self.targs.numpy(), self.decoded.numpy(), len(self.vocab))

    def most_confused(self, min_val: int = 1) -> list[tuple[str, str, int]]:
        """(true class, predicted class, count) of the mistakes made at least `min_val` times, most first."""
        wrong = self.targs != self.decoded
        pairs, counts = torch.unique(torch.stack([self.targs, self.decoded])[:, wrong], dim=1, return_counts=True)
        found = [(self.vocab[i], self.vocab[j], n) for (i, j), n in zip(pairs.T.tolist(), counts.tolist(), strict=True)]
        return sorted((pair for pair in found if pair[2] >= min_val), key=itemgetter(2), reverse=True)

    def print_classification_report(self) -> None:
        """Print scikit-learn's classification report."""
        from sklearn.metrics import classification_report

        names = [str(name) for name in self.vocab]
        labels = list(range(len(names)))
        print(classification_report(self.targs, self.decoded, labels=labels, target_names=names, zero_division=0))

    def figures(self, temperature: float | None = None) -> dict[str, Any]:
        """Accuracy, top-5, loss, macro precision/recall/F1, Brier score and ECE, with their 95 % intervals and n."""
        return metrics.figures(self.preds.numpy(), self.targs.numpy(), temperature)

    def temperature(self) -> float:
        """What the logarithms of the probabilities are divided by to calibrate them; fit it on the validation split."""
        return calibration.fit_temperature(self.preds.numpy(), self.targs.numpy())

    def paths(self) -> list[str]:
        """The file of each image, in the order of `preds`."""
        return item_paths(self.dl.items)
