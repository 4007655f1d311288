"""Published tests of what a generator misses, one a file: each measures images against modes that are known."""
