"""Methods: each file is one published algorithm, from clips to a loss."""

from jepa.config import Parts

METHODS = Parts(  # built over (encoder, clips)
    "methods",
    "jepa.methods.base:Method",
    lewm="jepa.methods.lewm:LeWM",
    pldm="jepa.methods.pldm:PLDM",
    vjepa_ac="jepa.methods.vjepa_ac:VJEPAAC",
    dino_wm="jepa.methods.dino_wm:DinoWM",
    dreamer="jepa.methods.dreamer:Dreamer",
    latent_dynamics="jepa.methods.latent_dynamics:LatentDynamics",
    nwm="jepa.methods.nwm:NWM",
    vjepa="jepa.methods.vjepa:VJEPA",
    vae="jepa.methods.vae:VAE",
    vpixel="jepa.methods.pixel_reconstruction:PixelReconstruction",
    levjepa="jepa.methods.levjepa:LeVJEPA",
)
