"""`python -m model` trains one configuration, `python -m model predict` asks a saved model."""

import sys

from model import command, prediction_command

if __name__ == "__main__":
    if sys.argv[1:2] == ["predict"]:
        sys.exit(prediction_command.main(sys.argv[2:]))
    sys.exit(command.main())
