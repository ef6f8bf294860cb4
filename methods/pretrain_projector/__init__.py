"""pretrain-projector: a projector of images that keeps their tokens near the text tokens."""
