"""measure-modality-gap: how far the states of image tokens are from those of text tokens."""
