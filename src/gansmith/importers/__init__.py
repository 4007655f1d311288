"""Generators in the file formats of other libraries, read without running code from the file.

`keras` and `onnx` find the files and have a separate process (`process`) read them and compute images: `keras_worker`
with Keras, after the checks of `keras_files`, `onnx_worker` and `pt2_worker` with ONNX Runtime. Each gives a module
from latents `z` and class ids `y` to images (N, C, H, W) in [-1, 1], and the metadata that Gansmith stored in the file
if it wrote it.
`forms` decides which input is which and what images mean.
"""
