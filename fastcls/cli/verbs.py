"""Every verb of the command line, registered with its application."""

from fastcls.cli import (  # noqa: F401  they register verbs
    cache,
    check,
    compare,
    doctor,
    evaluate,
    export,
    import_,
    lr_find,
    models,
    pack,
    predict,
    push,
    recipe,
    recipes,
    report,
    resume,
    runs,
    search,
    serve,
)
from fastcls.cli.app import app as app
