"""Reductions of frozen latents to fewer or narrower tokens: `[…, N, D]` to `[…, M, E]`."""

from jepa.config import Parts

REDUCTIONS = Parts(
    "reductions",
    "jepa.encoders.reductions.base:Reduction",
    pool="jepa.encoders.reductions.pool:Pool",
    merge="jepa.encoders.reductions.merge:Merge",
    pca="jepa.encoders.reductions.pca:PCA",
    joint_pca="jepa.encoders.reductions.pca:JointPCA",
)
