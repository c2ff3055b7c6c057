"""Prompts of any length and with weights, as embeddings that every diffusers pipeline takes.

The notation is that of AUTOMATIC1111's web UI: `(word)` has weight 1.1, `[word]` 1/1.1 and `(word:1.3)` 1.3; brackets
nest, a backslash escapes a bracket, and `BREAK` begins a new chunk. The text encoder reads 75 tokens at a time; the
hidden states of all chunks are concatenated along T.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sdtrt.errors import ConfigError, ShapeError
from sdtrt.shapes.spec import ShapeProfile

if TYPE_CHECKING:
    from torch import Tensor

Piece = tuple[str, float]
# Token ids of one call of the text encoder, without begin and end, and the weight of each.
Chunk = list[tuple[int, float]]

BREAK: Piece = ("BREAK", 0.0)
_FACTORS = {"(": 1.1, "[": 1 / 1.1}
# A full chunk ends after its last comma when that is at most so many tokens back, so that phrases are not split.
COMMA_REACH = 20
_MARKS = re.compile(
    r"\\(?P<literal>[\\()\[\]])|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<mark>[()\[\]])|\s*\b(?P<cut>BREAK)\b\s*"
)


def parse(text: str) -> list[Piece]:
    """Parse a prompt into pieces of text with their weights, with `BREAK` between chunks.

    A closing bracket without an opening one is text; a bracket that is not closed extends to the end.
    """
    pieces: list[Piece] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # indices of the pieces after open brackets
    end = 0
    for match in _MARKS.finditer(text):
        pieces.append((text[end : match.start()], 1.0))
        end, mark, weight = match.end(), match["mark"], match["weight"]
        pair = "[" if mark == "]" else "("
        if match["literal"]:
            pieces.append((match["literal"], 1.0))
        elif match["cut"]:
            pieces.append(BREAK)
        elif mark in opened:
            opened[mark].append(len(pieces))
        elif opened[pair]:
            _weigh(pieces, opened[pair].pop(), float(weight) if weight else _FACTORS[pair])
        else:
            pieces.append((match[0], 1.0))
    pieces.append((text[end:], 1.0))
    for pair, starts in opened.items():
        for start in starts:
            _weigh(pieces, start, _FACTORS[pair])
    return _joined(pieces)


def _weigh(pieces: list[Piece], start: int, factor: float) -> None:
    pieces[start:] = [p if p is BREAK else (p[0], p[1] * factor) for p in pieces[start:]]


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighbors of equal weight, so that the tokenizer sees whole words."""
    joined: list[Piece] = []
    for piece in pieces:
        if piece is not BREAK and joined and joined[-1] is not BREAK and joined[-1][1] == piece[1]:
            joined[-1] = (joined[-1][0] + piece[0], piece[1])
        elif piece[0]:
            joined.append(piece)
    return joined


def chunks(text: str, tokenizer: Any) -> list[Chunk]:
    """Tokenize a prompt into chunks of the text encoder's length; an empty prompt is one empty chunk."""
    length = tokenizer.model_max_length - 2
    comma = tokenizer(",", add_special_tokens=False).input_ids[-1]
    full: list[Chunk] = []
    chunk: Chunk = []
    for piece in parse(text):
        if piece is BREAK:
            full.append(chunk)
            chunk = []
            continue
        words, weight = piece
        for token in tokenizer(words, add_special_tokens=False, truncation=False, verbose=False).input_ids:
            if len(chunk) == length:
                commas = [i for i, (t, _) in enumerate(chunk) if t == comma and length - i <= COMMA_REACH]
                end = commas[-1] + 1 if commas and token != comma else length
                full.append(chunk[:end])
                chunk = chunk[end:]
            chunk.append((token, weight))
    return [*full, chunk] if chunk or not full else full


def is_plain(pipe: Any, *prompts: str | None) -> bool:
    """Whether the pipeline itself encodes these prompts as `encode_prompt` does: no weights, and one chunk each."""
    tokenizer = pipe.tokenizer or pipe.tokenizer_2
    return all(parse(p) in ([], [(p, 1.0)]) and len(chunks(p, tokenizer)) == 1 for p in prompts if p is not None)


def encode_prompt(
    pipe: Any,
    prompt: str | Sequence[str],
    negative_prompt: str | Sequence[str] | None = None,
    *,
    prompt_2: str | Sequence[str] | None = None,
    negative_prompt_2: str | Sequence[str] | None = None,
    clip_skip: int | None = None,
) -> dict[str, Tensor]:
    """Encode prompts into arguments for a call of `pipe`.

    Returns `prompt_embeds` and `negative_prompt_embeds` (prompts, T, D), and for SDXL the pooled embeddings of the
    first chunk (prompts, P). T is a multiple of the encoder's 77; the shorter of the two is filled with the states of
    an empty prompt. Prompts without notation that fit 75 tokens give the embeddings of the pipeline itself.

    Args:
        pipe: a Stable Diffusion 1.x, 2.x or XL pipeline, with engines or without.
        prompt: one prompt, or a list.
        negative_prompt: one for all prompts, or a list of the same length.
        prompt_2: for SDXL's second encoder; by default `prompt`.
        negative_prompt_2: for SDXL's second encoder; by default `negative_prompt`.
        clip_skip: last layers of the encoder that are left out for the prompt, as in diffusers.

    Raises:
        ShapeError: the engine of the U-Net was not built for that length.
        ConfigError: the numbers of prompts differ.
    """
    import torch

    xl = hasattr(pipe, "text_encoder_2")
    positive, count = _each_encoder(pipe, prompt, prompt_2), 1 if isinstance(prompt, str) else len(prompt)
    zeros = xl and negative_prompt is None and pipe.config.force_zeros_for_empty_prompt
    negative = _each_encoder(pipe, negative_prompt or "", negative_prompt_2, count)
    length = max(len(chunked) for part in (*positive, *negative) for chunked in part)
    _check_length(pipe, length)
    encoders = [e for e in (pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if e is not None]
    tokenizers = _tokenizers(pipe)

    def encode(parts: list[list[list[Chunk]]], skip: int | None) -> tuple[Tensor, Tensor]:
        encoded = [
            _encode(e, t, [c + [[]] * (length - len(c)) for c in part], skip, xl)
            for e, t, part in zip(encoders, tokenizers, parts, strict=True)
        ]
        return torch.cat([states for states, _ in encoded], dim=-1), encoded[-1][1]

    embeds, pooled = encode(positive, clip_skip)
    negative_embeds, negative_pooled = encode(negative, None) if not zeros else map(torch.zeros_like, (embeds, pooled))
    call = {"prompt_embeds": embeds, "negative_prompt_embeds": negative_embeds}
    more = {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": negative_pooled}
    return {**call, **more} if xl else call


def _tokenizers(pipe: Any) -> list[Any]:
    return [t for t in (pipe.tokenizer, getattr(pipe, "tokenizer_2", None)) if t is not None]


def _each_encoder(
    pipe: Any, first: str | Sequence[str], second: str | Sequence[str] | None, count: int | None = None
) -> list[list[list[Chunk]]]:
    """Chunks of every prompt for every text encoder; a single prompt is repeated `count` times."""
    texts = [first, second or first][-len(_tokenizers(pipe)) :]
    listed = [[t] * (count or 1) if isinstance(t, str) else list(t) for t in texts]
    for prompts in listed:
        if len(prompts) != (count or len(listed[0])):
            raise ConfigError(
                "the numbers of prompts differ", received=len(prompts), expected=count or len(listed[0]), slug="prompts"
            )
    return [[chunks(p, t) for p in prompts] for prompts, t in zip(listed, _tokenizers(pipe), strict=True)]


def _encode(encoder: Any, tokenizer: Any, prompts: list[list[Chunk]], skip: int | None, xl: bool) -> tuple[Any, Any]:
    """Hidden states of all chunks (prompts, T, D), and the pooled output of the first (prompts, P)."""
    import torch

    states, pooled = [], None
    for column in zip(*prompts, strict=True):
        ids, weights = zip(*(_padded(chunk, tokenizer) for chunk in column), strict=True)
        with torch.no_grad():
            out = encoder(torch.tensor(ids, device=encoder.device), output_hidden_states=True)
            state = _hidden_state(encoder, out, skip, xl)
        pooled = out[0] if pooled is None else pooled
        states.append(_emphasize(state, torch.tensor(weights, device=state.device)))
    return torch.cat(states, dim=1), pooled


def _padded(chunk: Chunk, tokenizer: Any) -> tuple[list[int], list[float]]:
    """Ids and weights of one input of the encoder: begin, tokens, end, padding."""
    size = tokenizer.model_max_length
    padding = [tokenizer.pad_token_id] * (size - 2 - len(chunk))
    ids = [tokenizer.bos_token_id, *(token for token, _ in chunk), tokenizer.eos_token_id, *padding]
    return ids, [1.0, *(weight for _, weight in chunk), 1.0, *(1.0 for _ in padding)]


def _hidden_state(encoder: Any, out: Any, skip: int | None, xl: bool) -> Any:
    """The hidden state that diffusers uses: for SDXL the one before the last layer, without the final norm."""
    if xl:
        return out.hidden_states[-(2 + (skip or 0))]
    if skip is None:
        return out[0]
    # A CLIPTextModel of transformers 5 has the norm itself, older ones and EngineTextEncoder in `text_model`.
    return getattr(encoder, "text_model", encoder).final_layer_norm(out.hidden_states[-(skip + 1)])


def _emphasize(state: Tensor, weights: Tensor) -> Tensor:
    """Multiply each token's state by its weight and restore the mean of the chunk, so that only the balance changes."""
    if (weights == 1).all():
        return state
    before = state.float()
    after = before * weights[..., None]
    return (after * (before.mean((1, 2), keepdim=True) / after.mean((1, 2), keepdim=True))).to(state.dtype)


def _check_length(pipe: Any, length: int) -> None:
    """Raise ShapeError, before anything is encoded, when the U-Net's engine was not built for so many chunks."""
    engine = getattr(pipe.unet, "engines", {}).get("unet")
    if engine is None:
        return
    context = engine.context
    tokens = length * _tokenizers(pipe)[0].model_max_length
    if not any(p.ranges["T"][0] <= tokens <= p.ranges["T"][2] for p in context.profiles):
        first = context.profiles[0].ranges
        wider = ShapeProfile({**first, "T": (*first["T"][:2], tokens)})
        raise ShapeError(
            "the prompt is longer than the U-Net was built for",
            slug="prompt-too-long",
            received=f"{length} chunks, which are T={tokens} states",
            expected=" or ".join(str(ShapeProfile({"T": p.ranges["T"]})) for p in context.profiles),
            hint=f'shorten it, or build for it: {context.rebuild} --profile "{wider}"',
        )
