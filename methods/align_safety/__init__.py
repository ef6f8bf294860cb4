"""align-safety: refusal fine-tuning with LoRA, what it gained, paid and broke (arXiv:2507.17075);
with measure-update-overlap and project-adapter, which share its linear algebra."""
