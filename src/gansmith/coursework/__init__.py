"""The hand-in: one zip file with what a course on GANs asks for.

`bundle` writes it and holds a run to the rules of the assignment; `tiles` chooses what the 25 images of its grid are
conditioned on; `sources` finds the part of this package that training needs. `evaluation.py` and `training_script.py`
(called train.py there) are copied into the zip as they are and run there, without Gansmith being installed.
"""

from gansmith.coursework.bundle import write_bundle

__all__ = ["write_bundle"]
