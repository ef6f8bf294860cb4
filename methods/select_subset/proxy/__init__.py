"""A proxy model for select-subset: fine-tuned on the data, then read at its checkpoints."""
