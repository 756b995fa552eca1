"""From a fastai DataBlock to DataLoaders: `data.loaders`, splitters for it, and the block of a table's labels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"blocks": ["by_column", "loaders", "stratified"], "target": ["label_block"]}
)
