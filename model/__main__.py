"""`python -m model` trains one configuration, `predict` asks a saved model, `onnx` converts it."""

import sys

from model import command, onnx_command, prediction_command

COMMANDS = {"predict": prediction_command.main, "onnx": onnx_command.main}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
    sys.exit(command.main())
