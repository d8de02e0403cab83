"""Whether ONNX files can be made here: asked before a training, not after hours of it."""

from importlib.util import find_spec

from model.errors import InputError

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_onnx_installed() -> None:
    """Raises `InputError` ``onnx_not_installed``. Loads none of the packages."""
    absent = [name for name in _PACKAGES if find_spec(name) is None]
    if absent:
        detail = f"ONNX files need {', '.join(absent)}: pip install 'bertune[onnx]'."
        raise InputError("onnx_not_installed", detail, ("onnx",))
