"""What frozen latents know of masks, depth and keypoints that belong to the frames."""
