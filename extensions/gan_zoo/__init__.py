"""A VAE, a GAN and a diffusion model of the same pictures; `python -m extensions.gan_zoo` is the command."""
