"""The toolkit: from `launch recipe d8 --cluster cpu2` to a trained model."""

__version__ = "0.1.0"
