"""GIT checkpoints of Hugging Face transformers: what the caption and the tower family both read from one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from .errors import OnlookerError

__all__ = ["GitCheckpoint", "GitCheckpointError", "first_line", "load_git_checkpoint", "quiet"]

MODEL_TYPE = "git"


class GitCheckpointError(OnlookerError):
    """A checkpoint cannot be found, is not one of GIT, or lacks weights or its vocabulary."""


class GitCheckpoint(NamedTuple):
    """The parts of a checkpoint; transformers gives them no types."""

    model: Any
    """A `GitForCausalLM` in eval mode, float32."""
    tokenizer: Any
    image_processor: Any
    """None if the checkpoint has none."""


def load_git_checkpoint(name: str) -> GitCheckpoint:
    """A checkpoint from a folder, or from the Hugging Face hub by its `owner/name`.

    Raises:
        GitCheckpointError: see there.
    """
    import transformers

    library: Any = transformers  # parts of it are untyped
    try:
        config = library.AutoConfig.from_pretrained(name)
        if config.model_type != MODEL_TYPE:
            raise ValueError(f"it is a checkpoint of {config.model_type!r}, not of GIT")
        with quiet(library.utils.logging):
            model, report = library.GitForCausalLM.from_pretrained(
                name, output_loading_info=True, ignore_mismatched_sizes=True
            )
        wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        if wrong:
            raise ValueError(f"its weights lack {wrong[0]} and {len(wrong) - 1} more, or they have other shapes")
        tokenizer = library.AutoTokenizer.from_pretrained(name)
        # transformers makes an empty tokenizer, without a word, where the vocabulary file is missing.
        if len(tokenizer) < config.vocab_size // 2:
            raise ValueError(f"its tokenizer knows {len(tokenizer)} of {config.vocab_size} pieces: add vocab.txt")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise GitCheckpointError(f"GIT checkpoint {name!r} cannot be loaded: {first_line(error)}") from error
    try:
        image_processor = library.AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError):
        image_processor = None
    return GitCheckpoint(model.float().eval(), tokenizer, image_processor)


@contextmanager
def quiet(logging: Any) -> Iterator[None]:
    """Keep transformers' progress bar and its table of weights that do not fit from the terminal."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    """What an error of a library says first: its messages run over many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
