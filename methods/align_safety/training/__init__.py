"""Refusal fine-tuning by trl and peft: rows, template, modules, training."""
