"""Decoders: latents to something a person can look at. They are fitted on frozen latents; the model learns nothing."""

from jepa.config import Parts

DECODERS = Parts(  # latents to images; built over (tokens, width, image_size)
    "decoders",
    "jepa.decoders.base:Decoder",
    pixels="jepa.decoders.pixels:PixelDecoder",
    diffusion="jepa.decoders.diffusion:DiffusionDecoder",
    vae="jepa.decoders.vae:VAEDecoder",
    dreamer="jepa.decoders.dreamer:DreamerDecoder",
)
OWN = ("vae", "dreamer")  # trained with a method of that name, not fitted
