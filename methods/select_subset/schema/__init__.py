"""The request: data set, features, proxy model, and the parameters of each method."""
