"""Generate text from a run's newest checkpoint. Imports torch when it is called, not before.

`python -P -m launcher.agent.generate FOLDER OPTIONS` does so on a cluster's head for a client
without torch: OPTIONS are the arguments of `Sampler.generate` as JSON; it prints {"step", "text"}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import LaunchError
from launcher.runs.checkpoint import newest_checkpoint
from launcher.runs.folder import RunFolder

if TYPE_CHECKING:
    from nanochat.model import GPT
    from nanochat.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sampler:
    """The newest whole checkpoint of a run, in memory."""

    step: int
    model: GPT
    tokenizer: Tokenizer

    @classmethod
    def load(cls, folder: RunFolder) -> Sampler:
        """Raises RunFailed where the run has no whole checkpoint yet."""
        from nanochat.model import GPT
        from nanochat.tokenizer import Tokenizer

        checkpoint = newest_checkpoint(folder)
        model = GPT.empty(folder.spec().recipe.model)
        model.load_state_dict(checkpoint.model_tensors())
        return cls(checkpoint.step, model, Tokenizer.load(folder.tokenizer))

    def generate(
        self, prompt: str, *, max_tokens: int, temperature: float, top_k: int, seed: int
    ) -> Iterator[str]:
        """Pieces of text that follow the prompt."""
        from nanochat.generate import stream_text

        return stream_text(
            self.model,
            self.tokenizer,
            prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
        )


def main(folder: str, options: str) -> None:
    sampler = Sampler.load(RunFolder(Path(folder)))
    pieces = sampler.generate(**json.loads(options))
    print(json.dumps({"step": sampler.step, "text": "".join(pieces)}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except LaunchError as error:
        raise SystemExit(error.message) from None
