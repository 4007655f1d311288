"""Generators in the file formats of other libraries, read without running code from the file.

Each importer returns a module from latents `z` and class ids `y` to images (N, C, H, W) in [-1, 1], and the metadata
that Gansmith stored in the file if it wrote it. `keras` has Keras read the file in a separate process, `keras_worker`,
after the checks of `keras_files`; `onnx` checks the graph and hands it to ONNX Runtime.
"""
