"""Exit codes of the command line; scripts rely on them."""

OK = 0
REFUSED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130
PIPE_CLOSED = 141

MEANINGS = {
    OK: "done",
    REFUSED: "the server refused, or a study or a check failed",
    USAGE: "wrong usage or input; nothing was sent or changed",
    UNREACHABLE: "no server, or no database, answers",
    INTERRUPTED: "Ctrl-C",
    PIPE_CLOSED: "whoever read the output stopped reading, such as `head`",
}
"""As `bertune --help` and the README say it."""
