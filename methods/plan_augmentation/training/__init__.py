"""Classifiers: the early training that says what is slow, and the trainings of the arms."""
