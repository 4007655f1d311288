"""Groups of similar images, found without labels, to tell both players what no label says.

Source of the idea: self-conditioned GANs, arXiv:2006.10728; here the groups are found once, from pixels.
"""

import torch
from torch import Tensor

COMPONENTS = 50


def find_clusters(pixels: Tensor, count: int) -> Tensor:
    """(N,) int64 cluster of each image: k-means on the leading principal components of uint8 (N, C, H, W)."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA

    flat = pixels.flatten(1).numpy().astype("float32") / 255
    codes = PCA(min(COMPONENTS, *flat.shape), svd_solver="randomized", random_state=0).fit_transform(flat)
    means = MiniBatchKMeans(count, random_state=0, n_init=3, batch_size=4096).fit(codes)
    return torch.from_numpy(means.labels_).long()
