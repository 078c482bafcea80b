"""Encoders: video clips to latents `[B, S, N, D]`."""

from jepa.config import Parts

ENCODERS = Parts(
    "encoders",
    "jepa.encoders.module:Encoder",
    conv="jepa.encoders.conv:ConvEncoder",
    dreamer_conv="jepa.encoders.dreamer_conv:DreamerConv",
    impala="jepa.encoders.impala:ImpalaEncoder",
    vae="jepa.encoders.vae:VAEEncoder",
    video_vit="jepa.encoders.video_vit:VideoViT",
    pca="jepa.encoders.pca:PCAEncoder",
    moments="jepa.encoders.moments:MomentsEncoder",
    frame="jepa.encoders.frame:FrameEncoder",
    per_frame="jepa.encoders.per_frame:PerFrameEncoder",
    compressed="jepa.encoders.compressed:CompressedEncoder",
)
