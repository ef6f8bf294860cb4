"""K-means with bounds (Hamerly) that gives the clusters of faiss, seeds included."""
