"""Judges of responses to harmful prompts: classifiers, guards that chat, graders."""
