"""nanochat in plain PyTorch: the model, its text, its training, its speech.

Knows nothing of `launcher` or Ray. Importing this package imports nothing else: `nanochat.sizes`
and `nanochat.dataset.sources` work where torch is not installed.
"""
