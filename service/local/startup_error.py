"""The error of a server that never came to serve; here, so that telling it loads no server."""


class StartupError(RuntimeError):
    """The application failed while it started; its log says why."""
