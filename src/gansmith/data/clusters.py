"""Groups of similar images, found without labels, to tell both players what no label says.

Source of the idea: self-conditioned GANs, arXiv:2006.10728; here the groups are found once, from pixels.
"""

import torch
from torch import Tensor

COMPONENTS = 50
NOTHING = 1e-4  # times the spread of the leading component: what is less is rounding


def find_clusters(pixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The cluster of each image, and a code for each cluster, by k-means on the leading principal components.

    Args:
        pixels: uint8 (N, C, H, W).

    Returns:
        (N,) int64 clusters, and (count, d) centres with each component scaled to unit variance; zeros where images do
        not differ in it. As first values of an embedding the codes let similar clusters share what is learnt, which
        random ones do not.
    """
    import numpy as np
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA

    flat = pixels.flatten(1).numpy().astype("float32") / 255
    codes = PCA(min(COMPONENTS, *flat.shape), svd_solver="randomized", random_state=0).fit_transform(flat)
    means = MiniBatchKMeans(count, random_state=0, n_init=3, batch_size=4096).fit(codes)
    spread = codes.std(axis=0)
    scale = np.where(spread > NOTHING * spread.max(), spread, np.inf)
    return torch.from_numpy(means.labels_).long(), torch.from_numpy(means.cluster_centers_ / scale).float()
