"""Selection of the part of a training set that is worth training on."""
