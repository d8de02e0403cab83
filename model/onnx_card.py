"""What a saved model's README says of the ONNX file beside it."""

from pathlib import Path

from model.config import Task
from model.saved_model import SavedModel

TITLE = "## ONNX"
_NEXT = "## Settings\n"

_MEANING: dict[Task, str] = {
    "single_label": "The highest logit of a row is its class's; a softmax gives the probabilities.",
    "multi_label": "A sigmoid of each logit gives its label's probability, which the thresholds "
    "are of.",
    "regression": "A row's one logit is its number.",
    "token": "The highest logit of a word's first word piece is its tag's.",
    "multi_task": "A row's logits are the outputs of all heads, one after the other, called "
    "`HEAD.OUTPUT`.",
}


def tell_of_onnx(folder: Path, saved: SavedModel, file: Path) -> None:
    """Say in the README of ``folder``, where it has one, that there is ``file`` and how it is
    asked; once, however often the file is written."""
    path = folder / "README.md"
    card = path.read_text(encoding="utf-8") if path.is_file() else TITLE
    if TITLE in card:
        return
    before, heading, after = card.partition(_NEXT)
    partial = path.with_name(".README.md")
    text = f"{before.rstrip()}\n\n{TITLE}\n\n{_told(saved, file)}\n\n{heading}{after}"
    partial.write_text(text.rstrip() + "\n", encoding="utf-8")
    partial.replace(path)


def _told(saved: SavedModel, file: Path) -> str:
    config = saved.config
    told = (
        f"`{file}` is the network for runtimes without torch; when it was written, it was compared "
        f"with the network itself. {_MEANING[config.task]} `id2label` in `config.json` has the "
        "names in the order of the logits."
    )
    if config.columns == "apart" or config.truncation in ("windows", "head_tail"):
        told += (
            " The file reads one sequence: what is said above of long texts, or of several, goes "
            "on around it, with its logits in place of the pipeline's."
        )
    code = (
        "import onnxruntime\nfrom transformers import AutoTokenizer  # it needs no torch\n\n"
        'folder = "path/to/this/folder"\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        f'session = onnxruntime.InferenceSession(f"{{folder}}/{file}")\n'
        f"read = tokenizer({_asked(saved)}, padding=True, truncation=True, "
        'return_token_type_ids=True, return_tensors="np")\n'
        "inputs = {entry.name: read[entry.name] for entry in session.get_inputs()}\n"
        '(logits,) = session.run(["logits"], inputs)'
    )
    return f"{told}\n\n```python\n{code}\n```"


def _asked(saved: SavedModel) -> str:
    """The arguments of the tokenizer for one row, or for each of its texts."""
    if saved.config.task == "token":
        return '[["some", "text"]], is_split_into_words=True'
    texts = saved.texts or 1
    if texts == 1:
        return '["some text"]'
    named = [f'"text {number}"' for number in range(1, texts + 1)]
    if saved.config.columns == "apart":
        return f"[{', '.join(named)}]"
    return f"[{named[0]}], [{' + tokenizer.sep_token + '.join(named[1:])}]"
