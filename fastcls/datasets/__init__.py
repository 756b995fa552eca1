"""The datasets that recipes use, a function for each; `folder` reads images of your own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "catalogue": ["CATALOGUE"],
        "folders": [
            "WNID_NAMES",
            "birds",
            "birds_table",
            "cifar10",
            "cifar100",
            "digits",
            "find",
            "flowers",
            "flowers_table",
            "folder",
            "imagenette",
            "imagewoof",
            "pets",
            "pets_parts",
            "pets_split",
            "planet",
            "planet_table",
        ],
    },
)
