"""Published tables that can be run: what a generator misses where the modes are known, and objectives compared."""
