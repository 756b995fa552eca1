"""A local page where pictures are dropped and the network of a run says what it sees, and why."""

from fastcls.errors import EnvironmentProblem

try:
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError:
    raise EnvironmentProblem(
        "fastcls serve needs Starlette and uvicorn, which are not installed.",
        "Install them:  pip install 'fastcls[serve]'",
    ) from None
