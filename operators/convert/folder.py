"""From a parameter tree of the reference to a folder of ours, checked by loading it again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from onlooker.operators.caption.convert import load_reference, reference_shapes
from onlooker.operators.caption.convert_config import git_config, vocabulary_rows
from onlooker.operators.caption.dense import DenseCaptioner
from onlooker.operators.caption.dense_config import DenseConfig
from onlooker.operators.caption.dense_load import load_video_captioner, save_video_captioner
from onlooker.operators.caption.load import FILES
from onlooker.operators.caption.paragraph import ParagraphCaptioner
from onlooker.operators.caption.vid2seq.convert import state_from_reference
from onlooker.operators.caption.vid2seq.load import build, load_pieces, load_vid2seq, save_vid2seq
from onlooker.operators.caption.vid2seq.model import Vid2Seq
from onlooker.operators.caption.vid2seq.reference import vid2seq_config
from onlooker.operators.convert.read import ReferenceTreeError, Tree, read_tree
from onlooker.operators.convert.tree import check_tree
from onlooker.operators.errors import OnlookerError
from onlooker.operators.localize.unloc.convert import load_reference as load_unloc
from onlooker.operators.localize.unloc.convert import reference_shapes as unloc_shapes
from onlooker.operators.localize.unloc.load import read_localizer, save_localizer
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.localize.unloc.reference import unloc_config
from onlooker.operators.objects.densevoc.convert import TEXT
from onlooker.operators.objects.densevoc.convert import load_reference as load_densevoc
from onlooker.operators.objects.densevoc.convert import reference_shapes as densevoc_shapes
from onlooker.operators.objects.densevoc.load import read_object_model, save_object_model
from onlooker.operators.objects.densevoc.model import DenseVoc
from onlooker.operators.objects.densevoc.reference import densevoc_config
from onlooker.operators.objects.pixelllm.convert import load_reference as load_pixelllm
from onlooker.operators.objects.pixelllm.convert import reference_shapes as pixelllm_shapes
from onlooker.operators.objects.pixelllm.load import read_pixelllm, save_pixelllm
from onlooker.operators.objects.pixelllm.model import PixelLlm
from onlooker.operators.objects.pixelllm.reference import pixelllm_config

Kind = Literal["git-dense", "git-paragraph", "vid2seq", "unloc", "densevoc", "pixelllm"]
KINDS: tuple[Kind, ...] = ("git-dense", "git-paragraph", "vid2seq", "unloc", "densevoc", "pixelllm")
"""As `config.json` calls them."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Model = DenseCaptioner | ParagraphCaptioner | Vid2Seq | Unloc | DenseVoc | PixelLlm
Report = Callable[[str, float], None]
"""Is told what is being done, and which share of it is."""


class ConversionError(OnlookerError):
    """A tree cannot be converted as asked; the message says what to do."""


@dataclass(frozen=True)
class Conversion:
    """How a tree is converted.

    Attributes:
        kind: None = found by the arrays and the vocabulary.
        file: a complete configuration of the reference; None = as released.
        changes: options of the reference that go before all others.
        pieces: the words by their ids; GIT models need them.
        dtype: of the stored weights, a name in `DTYPES`.
        force: replace a model that is there.
    """

    kind: Kind | None = None
    file: Mapping[str, Any] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    pieces: Sequence[str] | None = None
    dtype: str = "float32"
    force: bool = False

    def __post_init__(self) -> None:
        """Check that the words stay apart in a file of one a line."""
        if self.pieces is not None and "\n".join(self.pieces).splitlines() != list(self.pieces):
            raise ConversionError("a word of the vocabulary is empty or holds a line break: its ids would shift")


@dataclass(frozen=True)
class Converted:
    """What became of a tree.

    Attributes:
        kind: of the model.
        arrays: of the tree.
        numbers: in all of them.
        assumed: options that nobody told, as in the released configurations.
    """

    kind: Kind
    arrays: int
    numbers: int
    assumed: Mapping[str, Any]


def convert(source: Path, out: Path, how: Conversion, report: Report | None = None) -> Converted:
    """Write a parameter tree as a folder that our loaders read.

    The folder is made beside its place, loaded and compared, and only then moved there: one that was there stays whole
    if any of that fails.

    Args:
        source: see `convert.read.read_tree`.
        out: the folder.
        how: what the tree does not tell.
        report: is told how far it is.

    Raises:
        OnlookerError: the folder is not empty, the tree cannot be read or does not fit a model, its numbers are not
            finite, or an option cannot be.
    """
    tell = report or (lambda what, share: None)
    _check_place(out, how.force)
    tree = read_tree(source, lambda share: tell("reading", share))
    kind = how.kind or find_kind(tree, how.pieces)
    model, assumed = _model(kind, tree, how)
    _check_numbers(tree, how.dtype)
    converted = Converted(kind, len(tree), sum(array.size for array in tree.values()), assumed)
    del tree
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as place:
        tell("writing", 0.0)
        _save(Path(place), model, how)
        tell("checking", 0.5)
        _check_folder(Path(place), model, how)
        _move(Path(place), out)
    tell("done", 1.0)
    return converted


def _move(place: Path, out: Path) -> None:
    """Put the files of a model into a folder; what another model left there under their names goes."""
    out.mkdir(exist_ok=True)
    for name in FILES:
        if (place / name).exists():
            os.replace(place / name, out / name)
        else:
            (out / name).unlink(missing_ok=True)


def find_kind(tree: Tree, pieces: Sequence[str] | None) -> Kind:
    """Which model a tree belongs to.

    A dense GIT model and a paragraph model have the same arrays; the dense one knows more tokens than words.

    Raises:
        OnlookerError: it is none of them, or it takes the vocabulary to tell.
    """
    if any(name.startswith(("text_decoder/", "encoder/visual_encoder/")) for name in tree):
        return "vid2seq"
    if any(name.startswith("video_text_fusion/") for name in tree):
        return "unloc"
    if any(name.startswith("proposal_generator/") for name in tree):
        return "densevoc"
    if any(name.startswith("prompt_adapter/") for name in tree):
        return "pixelllm"
    if not any(name.startswith("textual/") for name in tree):
        some = ", ".join(sorted(tree)[:3]) or "no array"
        raise ReferenceTreeError(
            f"this is no parameter tree of a streaming captioner (it has {some}): those of GIT have arrays "
            "textual/..., those of Vid2Seq text_decoder/..., those of UnLoc video_text_fusion/..., "
            "those of Dense VOC proposal_generator/..., those of PixelLLM prompt_adapter/..."
        )
    rows, words = vocabulary_rows(tree), len(_needed(pieces))
    if words > rows:
        raise ConversionError(f"the vocabulary has {words} words, the model only {rows} tokens: is it the right one?")
    return "git-dense" if words < rows else "git-paragraph"


def _needed(pieces: Sequence[str] | None) -> Sequence[str]:
    if not pieces:
        raise ConversionError(
            "a model that writes captions needs its words: give a vocab.txt by --vocab (of published models that of "
            "bert-base-uncased)"
        )
    return pieces


def _check_place(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConversionError(f"{str(out)!r} is a file: name a folder to write to")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ConversionError(
            f"folder {str(out)!r} is not empty: name another one, or replace what it holds by --force"
        )


def _model(kind: Kind, tree: Tree, how: Conversion) -> tuple[Model, Mapping[str, Any]]:
    """The model with the tree's numbers, and what was assumed about it."""
    if kind == "vid2seq":
        config = vid2seq_config(tree, how.file, how.changes)
        names = ("num_bins", "train_points", "test_points", "max_length") if how.file is None else ()
        assumed = {name: getattr(config, name) for name in names}
        return build(config, state_from_reference(tree, config)).eval(), assumed
    if kind == "unloc":
        told = unloc_config(tree, how.file, how.changes)
        with torch.device("meta"):  # as below
            check_tree(unloc_shapes(Unloc(told.config)), tree)
        localizer = Unloc(told.config).eval()
        load_unloc(localizer, tree)
        return localizer, told.assumed
    if kind == "densevoc":
        return _densevoc(tree, how)
    if kind == "pixelllm":
        return _pixelllm(tree, how)
    configured = git_config(tree, kind == "git-dense", _needed(how.pieces), how.file, how.changes)
    own = configured.config
    with torch.device("meta"):  # sizes alone: what does not fit is told before anything is computed
        shape: nn.Module = DenseCaptioner(own) if isinstance(own, DenseConfig) else ParagraphCaptioner(own)
    check_tree(reference_shapes(shape), tree)
    model = shape.to_empty(device="cpu")
    assert isinstance(model, DenseCaptioner | ParagraphCaptioner)
    load_reference(model, tree)
    return model.eval(), configured.assumed


def _densevoc(tree: Tree, how: Conversion) -> tuple[DenseVoc, Mapping[str, Any]]:
    if any(name.startswith(f"{TEXT}/") for name in tree):
        _needed(how.pieces)
    told = densevoc_config(tree, how.file, how.changes, how.pieces)
    with torch.device("meta"):  # as below
        shape = DenseVoc(told.config)
    check_tree(densevoc_shapes(shape), tree)
    model = shape.to_empty(device="cpu")
    load_densevoc(model, tree)
    return model.eval(), told.assumed


def _pixelllm(tree: Tree, how: Conversion) -> tuple[PixelLlm, Mapping[str, Any]]:
    _needed(how.pieces)
    told = pixelllm_config(tree, how.file, how.changes)
    with torch.device("meta"):  # as above
        shape = PixelLlm(told.config)
    check_tree(pixelllm_shapes(shape), tree)
    model = shape.to_empty(device="cpu")
    load_pixelllm(model, tree)
    return model.eval(), told.assumed


def _check_numbers(tree: Tree, dtype: str) -> None:
    """Refuse numbers that are not finite, also once they are stored."""
    largest = torch.finfo(DTYPES[dtype]).max
    for name, array in tree.items():
        top = float(np.abs(array).max(initial=0))  # NaN if there is one
        if not np.isfinite(top):
            raise ReferenceTreeError(f"{name} holds numbers that are not finite: the checkpoint is damaged")
        if top > largest:
            raise ConversionError(f"{name} holds {top:.3g}, too much for {dtype}: store it as bfloat16 or float32")


def _save(folder: Path, model: Model, how: Conversion) -> None:
    if isinstance(model, Unloc):
        save_localizer(folder, model, dtype=DTYPES[how.dtype])
        return
    if isinstance(model, Vid2Seq):
        save_vid2seq(folder, model, how.pieces, DTYPES[how.dtype])
        return
    try:
        if isinstance(model, DenseVoc):
            save_object_model(folder, model, pieces=how.pieces or (), dtype=DTYPES[how.dtype])
        elif isinstance(model, PixelLlm):
            save_pixelllm(folder, model, _needed(how.pieces), dtype=DTYPES[how.dtype])
        else:
            save_video_captioner(folder, model, _needed(how.pieces), DTYPES[how.dtype])
    except ValueError as error:
        raise ConversionError(f"the vocabulary does not fit the model: {error}") from error


def _check_folder(folder: Path, model: Model, how: Conversion) -> None:
    """Load what was written and compare it."""
    loaded: Model
    if isinstance(model, Unloc):
        loaded, pieces = read_localizer(folder).model, list(how.pieces or ())
    elif isinstance(model, DenseVoc):
        found = read_object_model(folder)
        loaded, pieces = found.model, list(found.pieces)
    elif isinstance(model, PixelLlm):
        stored_model = read_pixelllm(folder)
        loaded, pieces = stored_model.model, list(stored_model.pieces)
    elif isinstance(model, Vid2Seq):
        loaded, pieces = load_vid2seq(folder), load_pieces(folder)
    else:
        loaded, pieces = load_video_captioner(folder)
    stored = DTYPES[how.dtype]
    same = list(how.pieces or ()) == pieces and all(
        torch.equal(own.to(stored).float(), read)
        for own, read in zip(model.parameters(), loaded.parameters(), strict=True)
    )
    if loaded.config.to_dict() != model.config.to_dict() or not same:
        raise ConversionError("the folder does not hold what was written to it: is the disk full or damaged?")
