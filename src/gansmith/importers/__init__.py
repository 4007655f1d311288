"""Generators in the file formats of other libraries, read without running code that a file brings.

Each importer returns a module from latents `z` and class ids `y` to images (N, C, H, W) in [-1, 1], and the notes that
Gansmith stored in the file if it wrote it. `keras` has Keras read the file in a process of its own, `keras_worker`;
`onnx` checks the graph and hands it to ONNX Runtime.
"""
