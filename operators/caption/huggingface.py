"""GIT checkpoints of Hugging Face transformers (`microsoft/git-base`, `git-large` and their fine-tuned kin).

The decoder runs in transformers itself, so with the tokens of one frame as the memory the captions are those of
`GitForCausalLM.generate`. A memory of many frames takes the place of the picture: GIT's decoder attends to any number
of visual tokens and gives them no positions.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..git_checkpoint import GitCheckpoint, GitCheckpointError, load_git_checkpoint
from .captioner import Bonus, CaptionModel, DecodeOptions, MemoryLike, Proposal, memory_rows
from .load import CaptionerError

DEFAULT_OPTIONS = DecodeOptions(beam=4, max_length=50)


class HuggingFaceCaptioner(CaptionModel):
    """A `GitForCausalLM` that reads memory tokens in place of a picture's.

    Earlier captions are the beginning of the text, which is what transformers' GIT knows as a prompt.
    """

    def __init__(self, checkpoint: GitCheckpoint, options: DecodeOptions | None = None) -> None:
        """Take the checkpoint, whose image encoder is taken out of its model; no options: 4 beams, 50 tokens."""
        self.options = options or DEFAULT_OPTIONS
        self._model, self._tokenizer, self._image_processor = checkpoint
        self._encoder = self._model.git.image_encoder
        self._model.git.image_encoder = _MemoryAsPicture()
        self._lock = threading.Lock()  # transformers keeps the number of visual tokens in the model

    @property
    def token_width(self) -> int:
        """Width D of the visual tokens."""
        return int(self._model.config.vision_config.hidden_size)

    def to(self, device: str) -> None:
        """See `CaptionModel.to`."""
        self._model.to(device)
        self._encoder.to(device)

    @property
    def max_frames(self) -> int:
        """Frames that the checkpoint has a temporal embedding for; 1 for an image captioner."""
        return int(self._model.config.num_image_with_embedding or 1)

    @torch.inference_mode()
    def encode_frames(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """Visual tokens (T, N, D) float32 of frames (T, H, W, 3) uint8 RGB, as the checkpoint's processor sees them.

        Raises:
            CaptionerError: the checkpoint came without an image processor.
        """
        if self._image_processor is None:
            raise CaptionerError("this checkpoint has no image processor (preprocessor_config.json): add it")
        pixels = self._image_processor(images=list(frames), return_tensors="pt")["pixel_values"]
        hidden = self._encoder(pixels.to(self._model.device)).last_hidden_state
        return hidden.float().cpu()  # type: ignore[no-any-return]

    def video_tokens(self, tokens: Tensor) -> Tensor:
        """The tokens (T, N, D) of a few frames as one memory (T * N, D), in the way that the checkpoint learnt videos.

        Raises:
            ValueError: more frames than `max_frames`.
        """
        if len(tokens) > self.max_frames:
            raise ValueError(f"{len(tokens)} frames, but the checkpoint was trained on {self.max_frames} at most")
        if self._model.config.num_image_with_embedding:
            times = torch.cat(list(self._model.git.img_temporal_embedding))[: len(tokens)]  # T, 1, D
            tokens = tokens + times.detach().to(tokens)
        return tokens.flatten(0, 1)

    @torch.inference_mode()
    def generate(self, memory: Tensor, prompt: Sequence[int] = (), **arguments: Any) -> Any:
        """`GitForCausalLM.generate` about memories (B, M, D) instead of pictures.

        Args:
            memory: float tokens, without padding.
            prompt: token ids after the begin token with which every text starts.
            arguments: for transformers.
        """
        config = self._model.config
        if memory.ndim != 3 or memory.shape[1] == 0 or memory.shape[2] != self.token_width:
            raise ValueError(
                f"memories of shape {tuple(memory.shape)} do not fit this captioner: it takes (B, tokens, "
                f"{self.token_width})"
            )
        device = self._model.device
        ids = torch.tensor([[config.bos_token_id, *prompt]], device=device).expand(len(memory), -1)
        with self._visual_tokens(memory.shape[1]):
            return self._model.generate(
                pixel_values=memory[:, None].to(device, self._model.dtype),
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                **arguments,
            )

    def propose(
        self,
        memories: Sequence[MemoryLike],
        prefixes: Sequence[Sequence[str]] | None = None,
        beam: int | None = None,
        bonus: Bonus | None = None,
    ) -> list[list[Proposal]]:
        """See `CaptionModel.propose`; the search score is transformers' own, `options.alpha` is not used.

        Memories are decoded one by one: each call has the shape of its memory.
        """
        found = []
        for item, memory in enumerate(memories):
            own = self._search(memory_rows(memory), prefixes[item] if prefixes else (), beam or self.options.beam)
            if bonus is not None:
                extra = bonus(item, [proposal.text for proposal in own])
                own = [p._replace(total=p.total + more) for p, more in zip(own, extra, strict=True)]
            found.append(sorted(own, key=lambda proposal: -proposal.total))
        return found

    def _search(self, memory: Tensor, prefix: Sequence[str], beam: int) -> list[Proposal]:
        prompt = self._prompt(prefix)
        result = self.generate(
            memory[None],
            prompt,
            num_beams=beam,
            num_return_sequences=beam,
            do_sample=False,
            max_length=self.options.max_length + len(prompt),
            output_scores=True,
            return_dict_in_generate=True,
        )
        written = result.sequences[:, 1 + len(prompt) :]
        lengths = (written != self._model.config.pad_token_id).sum(1).clamp(min=1)
        if beam > 1:
            totals = result.sequences_scores
            # Log-probability over length ** penalty, of which the mean over the tokens is wanted.
            penalty = self._model.generation_config.length_penalty
            means = totals * lengths ** ((1.0 if penalty is None else penalty) - 1.0)
        else:
            totals = means = torch.stack([scores.log_softmax(-1).max() for scores in result.scores]).mean()[None]
        texts: dict[str, Proposal] = {}
        for ids, mean, total in zip(written, means.tolist(), totals.tolist(), strict=True):
            text = _sentence(self._tokenizer.decode(ids, skip_special_tokens=True))
            texts.setdefault(text, Proposal(text, math.exp(mean), total))
        return list(texts.values())

    def _prompt(self, captions: Sequence[str]) -> list[int]:
        """The pieces of earlier captions, cut at the front to the option's length."""
        pieces = [index for text in captions for index in self._tokenizer(text, add_special_tokens=False)["input_ids"]]
        return pieces[max(0, len(pieces) - self.options.prefix_length + 2) :]

    @contextmanager
    def _visual_tokens(self, count: int) -> Iterator[None]:
        """Tell the model how many visual tokens there are: its mask of a cached step counts on it."""
        with self._lock:
            for layer in self._model.git.encoder.layer:
                layer.attention.self.image_patch_tokens = count
            yield


class _MemoryAsPicture(nn.Module):
    """Stands in for the image encoder: what comes in as pixels (B, 1, M, D) is the memory already."""

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=pixel_values.flatten(1, 2))


def is_transformers_folder(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of transformers, of whatever model, as far as its config tells."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "model_type" in values


def load_git(name_or_folder: str | Path, options: DecodeOptions | None = None) -> HuggingFaceCaptioner:
    """A GIT checkpoint from a folder, or from the Hugging Face hub by its `owner/name`.

    Raises:
        CaptionerError: it cannot be found, is not GIT, or lacks weights or its vocabulary.
    """
    try:
        return HuggingFaceCaptioner(load_git_checkpoint(str(name_or_folder)), options)
    except GitCheckpointError as error:
        raise CaptionerError(str(error)) from error


def _sentence(text: str) -> str:
    """The text as the other captioners write it: first letter upper case."""
    text = text.strip()
    return text[:1].upper() + text[1:]
