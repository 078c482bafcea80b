"""What frozen latents know, beside what is known without pretraining."""
