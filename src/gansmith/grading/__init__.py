"""Grading hand-ins of a course: each runs in bounded processes, and is measured by the images it generates.

`settings` says what is asked for; `handins` finds hand-ins and copies them; `sandbox` runs a command within bounds and
`worker` is what it runs; `measures` compares images; `grader` puts these together, and `pages` writes what it found.

Code of a hand-in runs in `worker` alone. Everything else reads files and arrays, and unpickles nothing.
"""
