"""From a fastai DataBlock to DataLoaders: `data.loaders`; splits of a table, and splitters for a block."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"blocks": ["loaders"], "splitting": ["by_column", "split", "stratified"]}
)
