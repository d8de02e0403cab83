"""Exit codes of the command line; scripts rely on them."""

OK = 0
REFUSED = 1
"""The server refused, a study failed, or a check did."""
USAGE = 2
"""Wrong usage or input."""
UNREACHABLE = 3
"""No server, or no database, answers."""
INTERRUPTED = 130
"""Ctrl-C."""
