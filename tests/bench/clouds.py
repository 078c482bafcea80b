"""Videos to measure decoding with: drifting clouds with grain, like ordinary footage of that size.

360p at 30 frames a second, GOP 30 with B-frames: 0.7 Mbit/s, about 0.6 ms a frame to decode.
"""

import shutil
from pathlib import Path

import av
import numpy as np
import torch
from torch.nn import functional as F

RATE, HEIGHT, WIDTH = 30, 360, 640


def write_clouds(folder: Path, videos: int, scenes: int, seconds: float) -> Path:
    """Write so many videos, of which only `scenes` differ; returns the folder."""
    for number in range(scenes):
        random = np.random.default_rng(number)
        layers = [torch.from_numpy(random.random((1, 3, 12 * k, 20 * k), np.float32)) for k in (1, 3, 9)]
        clouds = [F.interpolate(x, (2 * HEIGHT, 2 * WIDTH), mode="bicubic")[0].numpy() for x in layers]
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.options = {"preset": "fast", "g": "30", "bf": "3", "crf": "23"}
            for t in range(round(seconds * RATE)):
                image = np.zeros((3, HEIGHT, WIDTH), np.float32)
                for speed, cloud in zip((0.2, 0.4, 0.8), clouds, strict=True):
                    y, x = int(speed * t / 2) % HEIGHT, int(speed * t) % WIDTH
                    image += cloud[:, y : y + HEIGHT, x : x + WIDTH] / 3
                image += random.normal(0, 0.006, (1, HEIGHT, WIDTH)).astype(np.float32)
                frame = (image.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode(None))
    for number in range(scenes, videos):
        shutil.copy(folder / f"{number % scenes}.mp4", folder / f"{number}.mp4")
    return folder
