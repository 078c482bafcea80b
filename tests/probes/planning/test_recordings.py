"""What recordings are to those that learn from them: clips as training saw them, and goals like them."""

import pytest
import torch

from jepa.encoders.conv import ConvEncoder
from jepa.world_model import LatentSpec, LatentWorldModel
from jepa_data.preprocessing import Preprocessing
from jepa_probes.planning.recordings import encode_goals


@pytest.mark.parametrize("shortest_edge", [None, 40])
def test_a_goal_of_a_clip_that_stands_still_is_its_latent_also_where_images_are_cropped(shortest_edge) -> None:
    torch.manual_seed(0)
    spec = LatentSpec(tokens=1, width=8, step_seconds=0.2, frames_per_step=2, action_size=2)
    seen = Preprocessing(32, 10.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "crop", shortest_edge)
    encoder = ConvEncoder(ConvEncoder.Config(width=8, channels=8, hidden=16, tubelet=2), 32, 4)
    model = LatentWorldModel(encoder, None, spec, seen).eval().requires_grad_(False)
    frame = torch.randint(0, 256, (3, 1, 3, 32, 32), dtype=torch.uint8)
    clips = frame.expand(-1, 4, -1, -1, -1)  # of a loader: cropped already
    torch.testing.assert_close(encode_goals(model, clips), model.encode_clips(clips))
