"""What is published about each dataset that recipes use: address, checksum, licence, whom to cite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """What is published about a dataset; `size` is the download in bytes, 0 if unknown, `more` its further files."""

    name: str
    title: str
    url: str
    archive: str
    size: int
    md5: str
    sha256: str
    classes: int
    images: int
    licence: str
    citation: str
    homepage: str
    note: str = ""
    more: tuple[tuple[str, str, str], ...] = ()  # (url, archive or .mat file, md5)


_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/pets/"
_FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_FASTAI = "https://s3.amazonaws.com/fast-ai-imageclas/"
_NO_LICENCE = (
    "none stated; the images were collected from the web for 80 Million Tiny Images, which its authors withdrew in 2020"
)
_IMAGENET = (
    "no licence stated for the images, which are ImageNet's: non-commercial research and education under "
    "ImageNet's terms; the repository that publishes the subset is Apache-2.0"
)
_KRIZHEVSKY = "A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009."


def _fastai_subset(name: str, title: str, size: int, md5: str, images: int, note: str) -> Dataset:
    return Dataset(
        name=name,
        title=title,
        url=f"{_FASTAI}{name}.tgz",
        archive=f"{name}.tgz",
        size=size,
        md5=md5,
        sha256="",
        classes=10,
        images=images,
        licence=_IMAGENET,
        citation="J. Howard. Imagenette. 2019. O. Russakovsky et al. ImageNet Large Scale Visual Recognition "
        "Challenge. IJCV 2015.",
        homepage="https://github.com/fastai/imagenette",
        note=note,
    )


# fast.ai publishes no checksum of the whole imagewoof files, and has replaced them before: the first
# download's is recorded and held. The md5s of the others are those that torchvision checks.
_UNCHECKED = "no checksum of the whole archive is published; the first download's is recorded"

_ALL = [
    Dataset(
        name="digits",
        title="Handwritten digits, 8×8 pixels (the UCI test part, shipped with scikit-learn)",
        url="",
        archive="",
        size=0,
        md5="",
        sha256="",
        classes=10,
        images=1797,
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
        citation="E. Alpaydin, C. Kaynak. Optical Recognition of Handwritten Digits. UCI Machine Learning "
        "Repository, 1998.",
        homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        note="nothing to download: scikit-learn holds it",
    ),
    Dataset(
        name="oxford-iiit-pet",
        title="Oxford-IIIT Pet, 37 breeds of cats and dogs",
        url=f"{_OXFORD}data/images.tar.gz",
        archive="images.tar.gz",
        size=791_918_971,
        md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
        sha256="",
        classes=37,
        images=7390,
        licence="CC BY-SA 4.0; the photographs' copyright stays with their owners",
        citation="O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar. Cats and Dogs. CVPR 2012.",
        homepage=_OXFORD,
        note="7,349 of the images are in the official split: 3,680 trainval, 3,669 test",
        more=((f"{_OXFORD}data/annotations.tar.gz", "annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),),
    ),
    Dataset(
        name="cifar10",
        title="CIFAR-10, 32×32 pixels",
        url=f"{_TORONTO}cifar-10-python.tar.gz",
        archive="cifar-10-python.tar.gz",
        size=170_498_071,
        md5="c58f30108f718f92721af3b95e74349a",
        sha256="",
        classes=10,
        images=60_000,
        licence=_NO_LICENCE,
        citation=_KRIZHEVSKY,
        homepage=f"{_TORONTO}cifar.html",
        note="50,000 train, 10,000 test",
    ),
    Dataset(
        name="cifar100",
        title="CIFAR-100, 32×32 pixels",
        url=f"{_TORONTO}cifar-100-python.tar.gz",
        archive="cifar-100-python.tar.gz",
        size=169_001_437,
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        sha256="",
        classes=100,
        images=60_000,
        licence=_NO_LICENCE,
        citation=_KRIZHEVSKY,
        homepage=f"{_TORONTO}cifar.html",
        note="50,000 train, 10,000 test; the 100 fine labels",
    ),
    _fastai_subset(
        "imagenette2-160",
        "Imagenette, ten easy classes of ImageNet, shorter side 160 pixels",
        99_003_388,
        "e793b78cc4c9e9a4ccc0c1155377a412",
        13_394,
        "9,469 train, 3,925 val",
    ),
    _fastai_subset(
        "imagenette2-320",
        "Imagenette, ten easy classes of ImageNet, shorter side 320 pixels",
        341_663_724,
        "3df6f0d01a2c9592104656642f5e78a3",
        13_394,
        "9,469 train, 3,925 val",
    ),
    _fastai_subset(
        "imagenette2",
        "Imagenette, ten easy classes of ImageNet, original sizes",
        1_557_161_267,
        "fe2fc210e6bb7c5664d602c3cd71e612",
        13_394,
        "9,469 train, 3,925 val",
    ),
    _fastai_subset(
        "imagewoof2-160",
        "Imagewoof, ten dog breeds of ImageNet, shorter side 160 pixels",
        92_612_825,
        "",
        12_954,
        f"9,025 train, 3,929 val; {_UNCHECKED}",
    ),
    _fastai_subset(
        "imagewoof2-320",
        "Imagewoof, ten dog breeds of ImageNet, shorter side 320 pixels",
        328_387_740,
        "",
        12_954,
        f"9,025 train, 3,929 val; {_UNCHECKED}",
    ),
    _fastai_subset(
        "imagewoof2",
        "Imagewoof, ten dog breeds of ImageNet, original sizes",
        1_343_715_595,
        "",
        12_954,
        f"9,025 train, 3,929 val; {_UNCHECKED}",
    ),
    Dataset(
        name="caltech-ucsd-birds-200-2011",
        title="Caltech-UCSD Birds-200-2011, 200 species",
        url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
        archive="CUB_200_2011.tgz",
        size=1_150_585_339,
        md5="97eceeb196236b17998738112f37df78",
        sha256="",
        classes=200,
        images=11_788,
        licence="non-commercial research and education only; Caltech does not own the photographs' copyright",
        citation="C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie. The Caltech-UCSD Birds-200-2011 "
        "Dataset. Technical report CNS-TR-2011-001, California Institute of Technology, 2011.",
        homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        note="5,994 train, 5,794 test; some of the images are also in ImageNet's training set",
    ),
    Dataset(
        name="oxford-flowers-102",
        title="Oxford 102 Flower, 102 kinds of flowers common in the United Kingdom",
        url=f"{_FLOWERS}102flowers.tgz",
        archive="102flowers.tgz",
        size=0,
        md5="52808999861908f626f3c1f4e79d11fa",
        sha256="",
        classes=102,
        images=8189,
        licence="none known to us; the images were collected from the web",
        citation="M.-E. Nilsback, A. Zisserman. Automated Flower Classification over a Large Number of Classes. "
        "ICVGIP 2008.",
        homepage=_FLOWERS,
        note="1,020 train, 1,020 valid, 6,149 test",
        more=(
            (f"{_FLOWERS}imagelabels.mat", "imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
            (f"{_FLOWERS}setid.mat", "setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
        ),
    ),
]

CATALOGUE: dict[str, Dataset] = {one.name: one for one in _ALL}
