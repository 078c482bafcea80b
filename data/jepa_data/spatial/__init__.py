"""Masks, depth, keypoints and poses that belong to the frames of a video: from a simulator, or computed by a user."""
