"""`python -m model` trains one configuration, without a server."""

import sys

from model.command import main

if __name__ == "__main__":
    sys.exit(main())
