"""The proxy itself: a vision-language model or a CLIP, its fine-tuning and what is read of it."""
