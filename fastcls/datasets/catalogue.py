"""What is published about each dataset that recipes use: address, checksum, licence, whom to cite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """What is published about a dataset; md5 is empty where none is published."""

    name: str
    title: str
    classes: int
    images: int
    licence: str
    citation: str
    homepage: str
    note: str
    url: str = ""
    archive: str = ""
    md5: str = ""
    size: int = 0  # of the download in bytes, 0 if unknown
    more: tuple[tuple[str, str, str], ...] = ()  # further files: (url, archive or .mat file, md5)


_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/pets/"
_FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_SUBSETS = {  # name -> sizes, bytes, md5; fast.ai publishes none of imagewoof, and has replaced its files before
    "imagenette2-160": ("shorter side 160 pixels", 99_003_388, "e793b78cc4c9e9a4ccc0c1155377a412"),
    "imagenette2-320": ("shorter side 320 pixels", 341_663_724, "3df6f0d01a2c9592104656642f5e78a3"),
    "imagenette2": ("original sizes", 1_557_161_267, "fe2fc210e6bb7c5664d602c3cd71e612"),
    "imagewoof2-160": ("shorter side 160 pixels", 92_612_825, ""),
    "imagewoof2-320": ("shorter side 320 pixels", 328_387_740, ""),
    "imagewoof2": ("original sizes", 1_343_715_595, ""),
}


def _subset(name: str) -> Dataset:
    sizes, size, md5 = _SUBSETS[name]
    nette = name.startswith("imagenette")
    unchecked = "; no checksum of the whole archive is published; the first download's is recorded"
    return Dataset(
        name=name,
        title=f"{'Imagenette, ten easy classes' if nette else 'Imagewoof, ten dog breeds'} of ImageNet, {sizes}",
        classes=10,
        images=13_394 if nette else 12_954,
        licence="no licence stated for the images, which are ImageNet's: non-commercial research and education under "
        "ImageNet's terms; the repository that publishes the subset is Apache-2.0",
        citation="J. Howard. Imagenette. 2019. O. Russakovsky et al. ImageNet Large Scale Visual Recognition "
        "Challenge. IJCV 2015.",
        homepage="https://github.com/fastai/imagenette",
        note="9,469 train, 3,925 val" if nette else f"9,025 train, 3,929 val{unchecked}",
        url=f"https://s3.amazonaws.com/fast-ai-imageclas/{name}.tgz",
        archive=f"{name}.tgz",
        md5=md5,
        size=size,
    )


def _cifar(classes: int, size: int, md5: str, note: str = "") -> Dataset:
    return Dataset(
        name=f"cifar{classes}",
        title=f"CIFAR-{classes}, 32×32 pixels",
        classes=classes,
        images=60_000,
        licence="none stated; the images were collected from the web for 80 Million Tiny Images, which its authors "
        "withdrew in 2020",
        citation="A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009.",
        homepage=f"{_TORONTO}cifar.html",
        note=f"50,000 train, 10,000 test{note}",
        url=f"{_TORONTO}cifar-{classes}-python.tar.gz",
        archive=f"cifar-{classes}-python.tar.gz",
        md5=md5,
        size=size,
    )


_ALL = [  # the md5s are those that torchvision checks
    Dataset(
        name="digits",
        title="Handwritten digits, 8×8 pixels (the UCI test part, shipped with scikit-learn)",
        classes=10,
        images=1797,
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
        citation="E. Alpaydin, C. Kaynak. Optical Recognition of Handwritten Digits. UCI Machine Learning "
        "Repository, 1998.",
        homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        note="nothing to download: included in scikit-learn",
    ),
    Dataset(
        name="oxford-iiit-pet",
        title="Oxford-IIIT Pet, 37 breeds of cats and dogs",
        classes=37,
        images=7390,
        licence="CC BY-SA 4.0; the photographs' copyright stays with their owners",
        citation="O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar. Cats and Dogs. CVPR 2012.",
        homepage=_OXFORD,
        note="7,349 of the images are in the official split: 3,680 trainval, 3,669 test",
        url=f"{_OXFORD}data/images.tar.gz",
        archive="images.tar.gz",
        md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
        size=791_918_971,
        more=((f"{_OXFORD}data/annotations.tar.gz", "annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),),
    ),
    _cifar(10, 170_498_071, "c58f30108f718f92721af3b95e74349a"),
    _cifar(100, 169_001_437, "eb9058c3a382ffc7106e4002c42a8d85", "; the 100 fine labels"),
    *map(_subset, _SUBSETS),
    Dataset(
        name="caltech-ucsd-birds-200-2011",
        title="Caltech-UCSD Birds-200-2011, 200 species",
        classes=200,
        images=11_788,
        licence="non-commercial research and education only; Caltech does not own the photographs' copyright",
        citation="C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie. The Caltech-UCSD Birds-200-2011 "
        "Dataset. Technical report CNS-TR-2011-001, California Institute of Technology, 2011.",
        homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        note="5,994 train, 5,794 test; some of the images are also in ImageNet's training set",
        url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
        archive="CUB_200_2011.tgz",
        md5="97eceeb196236b17998738112f37df78",
        size=1_150_585_339,
    ),
    Dataset(
        name="oxford-flowers-102",
        title="Oxford 102 Flower, 102 kinds of flowers common in the United Kingdom",
        classes=102,
        images=8189,
        licence="none known to us; the images were collected from the web",
        citation="M.-E. Nilsback, A. Zisserman. Automated Flower Classification over a Large Number of Classes. "
        "ICVGIP 2008.",
        homepage=_FLOWERS,
        note="1,020 train, 1,020 valid, 6,149 test",
        url=f"{_FLOWERS}102flowers.tgz",
        archive="102flowers.tgz",
        md5="52808999861908f626f3c1f4e79d11fa",
        more=(
            (f"{_FLOWERS}imagelabels.mat", "imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
            (f"{_FLOWERS}setid.mat", "setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
        ),
    ),
]

CATALOGUE: dict[str, Dataset] = {one.name: one for one in _ALL}

# of the labels 1 … 102 of Oxford 102 Flower, as its page names them, in the order of its category list
FLOWERS = (
    """
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
""".replace("\n", " ")
    .strip()
    .split(", ")
)
