"""The linear probe: a head that is solved on the features of the frozen body, before anything is trained.

models.fit_head(learn)       # an epoch of its own, phase "linear probe"; then fine-tune from there

Fine-tuning from a random head distorts what the body knows (Kumar et al. 2022, "Fine-tuning can distort pretrained
features and underperform out-of-distribution"); from the probe's head it starts where frozen features end.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.data.all import Datasets
from fastai.learner import Learner
from fastai.torch_core import get_model
from torch import nn

from fastcls.data import splitting, target
from fastcls.data.pixels import files, targets
from fastcls.datasets import groups
from fastcls.errors import RecipeError
from fastcls.machine import ranks
from fastcls.settings import options
from fastcls.training import objectives, patches
from fastcls.training.history import Stateless

# Weight decays tried, strongest first, each starting from the solution before it; of the mean loss, for features that
# are centred and have a mean square of 1.
DECAYS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
PATIENCE = 2  # weaker decays that do not improve before the search ends
FOLDS, FOLDS_UP_TO = 5, 20_000  # images; above, a fifth is held out once
NUMBERS = 2**28  # features that are kept at most: 1 GB. More images than that are sampled, evenly over the classes
CHUNK = 2**24  # logits computed at once
ITERATIONS = 200  # of L-BFGS; some 20 to 80 are needed


_kept: contextvars.ContextVar[dict[str, tuple[str, Any]] | None] = contextvars.ContextVar("kept", default=None)


@contextlib.contextmanager
def sharing(kept: dict[str, tuple[str, Any]]) -> Iterator[None]:
    """Folds made inside take what follows from the frozen network alone from `kept`; the first computes it for all."""
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)


def is_sharing() -> bool:
    """Whether this run is one of several folds."""
    return _kept.get() is not None


def shared(what: str, key: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, or gave an earlier fold of the same key; one thing of each kind is kept."""
    kept = _kept.get()
    if kept is None:
        return make()
    if what not in kept or kept[what][0] != key:
        kept.pop(what, None)  # before there are two
        kept[what] = key, make()
    return kept[what][1]


def digest(network: nn.Module, without: nn.Module | None = None) -> str:
    """A checksum of a network's weights and statistics, those of one layer left out."""
    left_out = set() if without is None else {tensor.data_ptr() for tensor in without.parameters()}
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if tensor.data_ptr() not in left_out:
            found.update(f"{name} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


@dataclass(frozen=True)
class Solution:
    """A linear layer: weight (classes, features), bias (classes,); the decay chosen; the mean loss it reaches.

    right of held_out: the images, in their first view, that a solution for the others classifies rightly.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    decay: float
    loss: float
    right: int
    held_out: int


def fit_head(learn: Learner, views: int = 2, freeze_statistics: bool = True) -> None:
    """Solve the last linear layer of a Learner on the features before it, as a separate epoch.

    The network runs once over the training images with validation transforms, and `views` - 1 times with training
    augmentation. The layer is a logistic regression on these features (L-BFGS), with its weight decay chosen by
    cross-validation on the training images and its logits scaled by the temperature that calibrates them. Validation
    metrics follow as after any epoch. All other weights are unchanged. The loss's class weights are used; label
    smoothing is not. RecipeError if the network does not end in a linear layer.

    The head is fitted with batch norm's pretrained statistics, so later fits keep them frozen;
    `learn.remove_cb(models.FreezeStatistics)` or freeze_statistics=False updates them.
    """
    learn.fit(1, cbs=SolveHead(views))
    if freeze_statistics and not learn.cbs.filter(lambda cb: isinstance(cb, FreezeStatistics)):
        learn.add_cb(FreezeStatistics())


class FreezeStatistics(Callback):
    """Keep the pretrained statistics of batch norm, whichever layers are trained.

    Statistics of small batches, or of few images, are too noisy to replace them. fastai's BnFreeze skips layers that
    are trained.
    """

    run_after = TrainEvalCallback

    def before_train(self) -> None:
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


class SolveHead(Stateless):
    """Solves the head in place of training for the length of a fit."""

    def __init__(self, views: int = 2) -> None:
        self.views = views

    @property
    def layer(self) -> nn.Linear:
        """What is solved."""
        return last_layer(get_model(self.learn.model), self.dls.c)

    def before_epoch(self) -> None:
        patches.once(self.learn, "all_batches", self._solve)  # validation is an ordinary one

    def _solve(self) -> None:
        layer = self.layer
        x, y = self._features(get_model(self.learn.model), layer)
        solution = solve(x, y, self.dls.c, self.views, class_weights(self.learn))
        with torch.no_grad():
            layer.weight.copy_(solution.weight)
            if layer.bias is not None:
                layer.bias.copy_(solution.bias)
        if hasattr(self.learn, "history"):
            self.learn.history.seen = len(y) * ranks.world()
        self.learn.loss = torch.tensor(solution.loss)
        self.learn.recorder.smooth_loss.accumulate(self.learn)

    def _features(self, network: nn.Module, layer: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
        """(views × n, features) and their classes, view by view in the order of the images."""
        dls = self.dls
        labels = targets(dls.train_ds)
        strata = objectives.of_labels(labels).strata(labels.numpy())
        rows = sample(strata, max(1, NUMBERS // self.views // layer.in_features))
        every = len(labels) + len(self.dls.valid_ds)
        if is_sharing() and ranks.world() == 1 and every * self.views * layer.in_features <= NUMBERS:
            of_all = self._of_all_folds(network, layer)
            return torch.cat(of_all), torch.cat([labels] * self.views).to(of_all[0].device)
        if len(rows) < len(labels):
            options.note(f"the linear probe is solved on {len(rows):,} of {len(labels):,} training images.")
        own = rows[ranks.here().rank :: ranks.world()] if ranks.world() > 1 else rows
        if short := -(-len(rows) // ranks.world()) - len(own):
            own = np.append(own, rows[:short])  # every process has as many
        seen = [torch.cat(list(self._outputs(network, layer, dl))) for dl in self._views(own)]
        if ranks.world() > 1:
            from fastcls.training.parallel import gathered

            seen = [gathered(x, len(rows)) for x in seen]
        return torch.cat(seen), torch.cat([labels[rows]] * self.views).to(seen[0].device)

    def _of_all_folds(self, network: nn.Module, layer: nn.Linear) -> list[torch.Tensor]:
        """The training images' features, a view each, out of those of training and validation images in one order.

        So that they come out the same whichever fold is the first.
        """
        own = files(self.dls.train_ds)
        every = [*own, *files(self.dls.valid_ds)]
        order = sorted(range(len(every)), key=every.__getitem__)
        images = hashlib.sha256("\n".join(sorted(every)).encode("utf-8", "surrogateescape")).hexdigest()

        def computed() -> list[torch.Tensor]:
            return [torch.cat(list(self._outputs(network, layer, dl))) for dl in self._views_of_all(order)]

        rows = np.argsort(order)[: len(own)]
        return [part[rows] for part in shared("features", images + digest(network, layer), computed)]

    def _views_of_all(self, order: Sequence[int]) -> Iterator[Any]:
        """As `_views`, of training and then validation images at these positions."""
        train, valid = self.dls.train_ds, self.dls.valid_ds
        if hasattr(train.items, "iloc"):
            items = pd.concat([train.items, valid.items]).iloc[list(order)].reset_index(drop=True)
        else:
            items = [[*train.items, *valid.items][i] for i in order]
        lists = train.tls[: train.n_inp]
        yield self.dls.valid.new(Datasets(tls=[tl._new(items, split_idx=1) for tl in lists]))
        for view in range(1, self.views):
            augmented = Datasets(tls=[tl._new(items, split_idx=0) for tl in lists])
            dl = self.dls.train.new(augmented, shuffle=False, drop_last=False)
            dl.epoch = view - 1
            yield dl

    def _views(self, rows: np.ndarray) -> Iterator[Any]:
        """Loaders of these training images: as validation shows them, then as training augments them."""
        yield self.dls.test_dl(splitting.picked(self.dls.train_ds.items, rows))
        for view in range(1, self.views):
            dl = self.dls.train.new(shuffle=False, drop_last=False)
            dl.epoch, dl.get_idxs = view - 1, rows.tolist
            yield dl

    @torch.no_grad()
    def _outputs(self, network: nn.Module, layer: nn.Linear, dl: Any) -> Iterator[torch.Tensor]:
        """What the layer is given, batch by batch; a stop that was asked for happens between two of them."""
        given: list[torch.Tensor] = []
        hook = layer.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].flatten(0, -2)))
        training = network.training
        network.eval()
        try:
            for batch in dl:
                given.clear()
                network(batch[0].as_subclass(torch.Tensor))
                yield given[0].float()
                if hasattr(self.learn, "saver"):
                    self.learn.saver.stop.raise_if_asked()
        finally:
            hook.remove()
            network.train(training)


def last_layer(network: nn.Module, classes: int) -> nn.Linear:
    """The linear layer that gives the logits; RecipeError where the network does not end in one."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers or layers[-1].out_features != classes:
        raise RecipeError(
            f"{type(network).__name__} does not end in a linear layer of {classes} outputs, so no head can be solved.",
            "Remove models.fit_head from the recipe's fit, or end the network in nn.Linear.",
        )
    return layers[-1]


def class_weights(learn: Learner) -> torch.Tensor | None:
    """(classes,): what each counts for, by the loss function and by a sampler that balances; None if all alike.

    Of several labels an image, what the positives of each count for, by the loss function.
    """
    loss = getattr(learn.loss_func, "func", learn.loss_func)
    if target.of(learn.dls).several:
        weight = getattr(loss, "pos_weight", None)
        return None if weight is None else weight.detach().float()
    weight = getattr(loss, "weight", None)
    if getattr(learn.dls.train, "weights", None) is not None:
        counts = torch.bincount(targets(learn.dls.train_ds), minlength=learn.dls.c)
        balancing = (1 / counts.clamp(min=1)).to(learn.dls.device)
        weight = balancing if weight is None else weight * balancing
    return None if weight is None else weight.detach().float()


def sample(labels: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, in order, as even over the classes as they are there."""
    if len(labels) <= most:
        return np.arange(len(labels))
    order = np.random.default_rng(options.current().seed).permutation(len(labels))
    turn = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()  # first of each class, second …
    return np.sort(order[np.argsort(turn, kind="stable")[:most]])


def solve(x: torch.Tensor, y: torch.Tensor, classes: int, views: int, weight: torch.Tensor | None = None) -> Solution:
    """The linear layer that classifies features best.

    x: (views × n, features), view by view; y: (views × n,) classes, or zeros and ones (views × n, classes) of several
    labels an image, each of which is classified against the rest; weight: (classes,). The decay is the one whose
    held-out predictions, at the temperature that suits them, have the least loss: strong decays classify best but
    leave the logits small. That temperature is the layer's.
    """
    x, centre, scale = _standardised(x)
    chosen = _choose(x, y, classes, views, weight)
    start = None
    for stronger in [d for d in DECAYS if d >= chosen.decay]:  # the path that the choice took
        start = _minimise(x, y, classes, stronger, weight, start)
    assert start is not None
    w, b = (tensor / chosen.temperature for tensor in start)
    objective = objectives.of_labels(y)
    loss = sum(float(objective.entropy(part @ w.T + b, of, weight)) for part, of in _chunks(x, y, classes))
    w = w / scale
    return Solution(w, b - w @ centre, chosen.decay, objective.mean(loss, y, weight), chosen.right, len(chosen.held))


def out_of_fold(x: torch.Tensor, y: torch.Tensor, classes: int, together: Sequence[str] = ()) -> np.ndarray:
    """(n, classes): what a solution for the others says of each image, by FOLDS; features (n, d), classes (n,).

    together: the name of each image's group, empty where it is alone; the others are those of other groups.
    """
    folds = None
    names, labels = [name or f"\0{i}" for i, name in enumerate(together)], y.cpu().numpy()
    if 1 < len(set(names)) < len(labels):
        count = min(FOLDS, len(set(names)), int(np.bincount(labels).max()))
        fold = groups.kfold(labels.astype(str).tolist(), names, count, 0)
        folds = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(count)]
    chosen = _choose(_standardised(x)[0], y, classes, 1, None, True, folds)
    return chosen.probabilities[np.argsort(chosen.held)]


def _standardised(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features centred and of a mean square of 1, as DECAYS wants them; the centre (d,) and the scale."""
    centre = x.mean(0)
    scale = (x - centre).square().mean().sqrt().clamp_min(1e-12)
    return (x - centre) / scale, centre, scale


@dataclass(frozen=True)
class Choice:
    """A decay and a temperature; held (m,) images with probabilities (m, classes), of which so many are right."""

    decay: float
    temperature: float
    right: int
    held: np.ndarray
    probabilities: np.ndarray


def _choose(
    x: torch.Tensor,
    y: torch.Tensor,
    classes: int,
    views: int,
    weight: torch.Tensor | None,
    whole: bool = False,
    folds: list[tuple[np.ndarray, np.ndarray]] | None = None,
) -> Choice:
    """The decay and the temperature, by predictions of images that a solution has not seen in any view.

    whole: of every image, however many there are. folds: training and held-out rows of each, else stratified ones.
    """
    n = len(y) // views
    objective, labels = objectives.of_labels(y), y[:n].cpu().numpy()
    judge = objective.judge
    folds = objective.folds(labels, FOLDS, n > FOLDS_UP_TO and not whole) if folds is None else folds
    if not folds:
        return Choice(1.0, 1.0, 0, np.empty(0, int), np.empty((0, classes)))
    parts = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in folds]
    seen = [torch.cat([part + view * n for view in range(views)]) for part, _ in parts]
    held = torch.cat([part for _, part in parts])
    starts: list[Any] = [None] * len(parts)
    best, since, chosen = math.inf, 0, Choice(DECAYS[0], 1.0, 0, held.numpy(), np.empty((0, classes)))
    for decay in DECAYS:
        logits = []
        for i, (own, (_, other)) in enumerate(zip(seen, parts, strict=True)):
            starts[i] = _minimise(x[own], y[own], classes, decay, weight, starts[i])
            logits.append(
                torch.cat([part @ starts[i][0].T + starts[i][1] for part, _ in _chunks(x[other], y[other], classes)])
            )
        p, truth = objective.probabilities(torch.cat(logits)).cpu().numpy(), labels[held]
        temperature = judge.temperature(p, truth)
        softened = judge.target.softened(p, temperature)
        loss = float(judge.losses(softened, truth).mean())
        since += 1
        if loss < best:
            right = int((judge.decide(p) == truth).reshape(len(truth), -1).all(1).sum())
            best, chosen, since = loss, Choice(decay, temperature, right, held.numpy(), softened), 0
        if since >= PATIENCE:
            break
    return chosen


def _minimise(
    x: torch.Tensor,
    y: torch.Tensor,
    classes: int,
    decay: float,
    weight: torch.Tensor | None,
    start: tuple[torch.Tensor, torch.Tensor] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the least cross-entropy plus decay / 2 times the weights' squares, by L-BFGS."""
    w, b = start or (x.new_zeros(classes, x.shape[1]), x.new_zeros(classes))
    w, b = w.clone().requires_grad_(), b.clone().requires_grad_()
    objective = objectives.of_labels(y)
    total = objective.total(y, weight)
    optimiser = torch.optim.LBFGS(
        [w, b],
        max_iter=ITERATIONS,
        history_size=20,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        penalty = decay / 2 * w.square().sum()
        penalty.backward()
        loss = penalty.detach()
        for part, of in _chunks(x, y, classes):
            share = objective.entropy(part @ w.T + b, of, weight) / total
            share.backward()
            loss = loss + share.detach()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    return w.detach(), b.detach()


def _chunks(x: torch.Tensor, y: torch.Tensor, classes: int) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Rows so few at a time that their logits stay small."""
    rows = max(1, CHUNK // classes)
    return zip(x.split(rows), y.split(rows), strict=True)
