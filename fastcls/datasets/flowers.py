"""Oxford 102 Flower as it is published: jpg/image_00001.jpg …, and in two files of MATLAB's labels and split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls.errors import DataError

if TYPE_CHECKING:
    from pandas import DataFrame

FILES = ("imagelabels.mat", "setid.mat")
SPLITS = {"trnid": "train", "valid": "valid", "tstid": "test"}
AGAIN = "Fetch the published files again."
# of the labels 1 … 102, as the dataset's page names them, in the order of its category list
_NAMES = """
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid, bird
of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris, globe-flower,
purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, pincushion flower, fritillary, red
ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke, sweet william, carnation,
garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya, cape flower, great masterwort,
siam tulip, lenten rose, barbeton daisy, daffodil, sword lily, poinsettia, bolero deep blue, wallflower, marigold,
buttercup, oxeye daisy, common dandelion, petunia, wild pansy, primula, sunflower, pelargonium, bishop of llandaff,
gaura, geranium, orange dahlia, pink-yellow dahlia?, cautleya spicata, japanese anemone, black-eyed susan, silverbush,
californian poppy, osteospermum, spring crocus, bearded iris, windflower, tree poppy, gazania, azalea, water lily,
rose, thorn apple, morning glory, passion flower, lotus, toad lily, anthurium, frangipani, clematis, hibiscus,
columbine, desert-rose, tree mallow, magnolia, cyclamen, watercress, canna lily, hippeastrum, bee balm, ball moss,
foxglove, bougainvillea, camellia, mallow, mexican petunia, bromelia, blanket flower, trumpet creeper, blackberry lily
"""
NAMES = " ".join(_NAMES.split()).split(", ")


def is_flowers(folder: Path) -> bool:
    """Whether a folder holds the published files."""
    return (folder / "jpg").is_dir() and all((folder / name).is_file() for name in FILES)


def flowers_table(root: Path) -> DataFrame:
    """One row an image of `datasets.flowers()`: path, label and the official split, train, valid or test."""
    import pandas as pd

    labels = _numbers(root / FILES[0], "labels")
    rows, missing = [], []
    for key, split in SPLITS.items():
        for number in _numbers(root / FILES[1], key):
            file = Path(root).absolute() / "jpg" / f"image_{number:05d}.jpg"
            if not (1 <= number <= len(labels) and 1 <= labels[number - 1] <= len(NAMES)):
                raise DataError(f"{root}: image {number} of setid.mat has no label in imagelabels.mat.", AGAIN)
            rows.append((file.as_posix(), NAMES[labels[number - 1] - 1], split))
            if not file.is_file():
                missing.append(file.name)
    if missing:
        some = ", ".join(missing[:3])
        count = f"{len(missing):,} of the {len(rows):,} images"
        raise DataError(f"{count} of {root / FILES[1]} are not there: {some}.", AGAIN)
    return pd.DataFrame(rows, columns=["path", "label", "split"])


def _numbers(file: Path, name: str) -> list[int]:
    """A row of integers in a MATLAB file."""
    from scipy.io import loadmat

    try:
        found: Any = loadmat(file, variable_names=[name])[name]
        return [int(number) for number in found.ravel()]
    except Exception as problem:  # SciPy's reader raises whatever a damaged file leads it to
        why = type(problem).__name__
        raise DataError(f"{file} is no MATLAB file with the numbers {name!r} ({why}).", AGAIN) from None
