"""Text from a model, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.errors import DataError
from nanochat.kv_cache import KVCache
from nanochat.model import GPT
from nanochat.tokenizer import StreamDecoder, Tokenizer


@torch.inference_mode()
def generate(
    model: GPT,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 42,
) -> Iterator[int]:
    """Yield up to `max_tokens` ids that follow `prompt` (at least one id).

    temperature 0 takes the likeliest id; `top_k` draws among the k likeliest only. The same seed
    draws the same text. Ends early where the model has no positions left (`model.positions`).
    """
    device = model.cos.device
    room = min(len(prompt) + max_tokens, model.positions)
    cache = KVCache(model.config, room, dtype=model.dtype, device=device)
    generator = torch.Generator(device).manual_seed(seed)
    tokens = torch.tensor([list(prompt)], device=device)
    for _ in range(room - len(prompt)):
        logits = model.logits(tokens, cache)
        tokens = sample_token(logits, temperature=temperature, top_k=top_k, generator=generator)
        yield int(tokens)


def sample_token(
    logits: Tensor, *, temperature: float, top_k: int | None, generator: torch.Generator
) -> Tensor:
    """(batch, vocab) logits -> (batch, 1) ids."""
    if not temperature > 1e-4:  # and for "nan": float32 logits cannot be divided by less
        return logits.argmax(dim=-1, keepdim=True)
    if top_k is not None:
        logits, ids = logits.topk(min(top_k, logits.size(-1)), dim=-1)
        choice = torch.multinomial(F.softmax(logits / temperature, dim=-1), 1, generator=generator)
        return ids.gather(1, choice)
    return torch.multinomial(F.softmax(logits / temperature, dim=-1), 1, generator=generator)


def stream_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 42,
) -> Iterator[str]:
    """Yield what follows `prompt`, in whole characters, until the model begins a new document."""
    decoder = StreamDecoder(tokenizer)
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    if len(ids) >= model.positions:
        raise DataError(
            f"the prompt has {len(ids):,} tokens; this model reads fewer than {model.positions:,}",
            fix="give it a shorter prompt",
        )
    for token in generate(
        model, ids, max_tokens=max_tokens, temperature=temperature, top_k=top_k, seed=seed
    ):
        if token == tokenizer.bos_id:
            break
        yield decoder.push(token)
    yield decoder.flush()
