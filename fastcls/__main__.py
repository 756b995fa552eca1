"""`python -m fastcls` is `fastcls`."""

from fastcls.cli import main

main()
