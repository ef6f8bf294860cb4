"""How much of an update of weights lies in the leading directions of the weights themselves."""
