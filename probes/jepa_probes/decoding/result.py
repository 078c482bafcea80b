"""RUN/decoder.json: what a decoder shows of held-out clips."""

from typing import Any, ClassVar

from jepa.config.result import Number, Part, Result


class Found(Part):
    """Where an object is in decoded frames.

    Attributes:
        frames: in which it is visible, by the world's truth.
        found: share of them in which something of its color is there, at least a quarter as strong as in truth.
        median, p90: distance from the true place in pixels, at the place where most of its color is.
        near: share in which it is found within `near_pixels`.
        floor: median distance by the same detector in frames that were only encoded as video, not decoded.
    """

    frames: int
    found: Number
    median: Number
    p90: Number
    near: Number
    floor: Number


class DecoderResult(Result):
    """How good the frames are that a decoder makes of latents.

    Attributes:
        decoder: its settings.
        psnr, ssim: of decoded frames, mean over frames; `mean_image`: the same of the mean image of training.
        objects: by name; empty for worlds whose truth does not say where objects are.
        near_pixels: see `Found.near`.
        milliseconds: to decode a frame, in batches of 64, on `device`.
        frames: measured.
        seconds: spent on fitting; None if it was not fitted now.
    """

    FILE: ClassVar[str] = "decoder.json"
    VERB: ClassVar[str] = "decoder"
    kind: str
    decoder: dict[str, Any]
    steps: int | None
    seed: int
    image_size: int
    psnr: Number
    ssim: Number
    mean_image: dict[str, Number]
    objects: dict[str, Found]
    near_pixels: float
    milliseconds: Number
    device: str
    frames: int
    parameters: int
    seconds: Number
