"""Labelled synthetic texts whose gradients point where those of real ones point."""
