"""Sweeps: searches for good choices by many trials, with Optuna.

`space` reads what is searched, `studies` is Optuna's part, `search` trains the trials, `results` and `figures` say what
was found. A sweep is a folder; everything but `search` reads it alone.
"""
