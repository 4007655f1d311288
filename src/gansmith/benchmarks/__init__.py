"""Published benchmarks that can be run, and comparisons of recipes, techniques and objectives."""
