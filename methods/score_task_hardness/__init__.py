"""Task hardness of data sets from their feature covariance (arXiv:2510.03605)."""
