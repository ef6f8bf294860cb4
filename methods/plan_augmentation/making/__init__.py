"""New images from old ones: noised part of the way, and denoised from there (SDEdit).

`generator` trains a diffusion model, `diffusion` samples from one, `pipelines` asks a declared
pipeline, `images` runs the part that makes them, `archive` writes and reads them, `looking` says
what they are like.
"""
