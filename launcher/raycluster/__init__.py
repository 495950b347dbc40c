"""Ray processes that this launcher started, and no others."""
