"""k-means beyond the golden partitions."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from methods.errors import JobCancelled
from methods.select_subset.kmeans import bounds
from methods.select_subset.kmeans import kmeans as engine
from methods.select_subset.kmeans.kmeans import assign, kmeans


def blobs(n, k, d, seed=0, spread=0.05):
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    return (rng.normal(size=(k, d))[labels] + spread * rng.normal(size=(n, d))), labels


def brute(x, centroids):
    return ((x[:, None].astype(float) - centroids.astype(float)) ** 2).sum(2)


def test_assignment_is_exact_in_blocks(monkeypatch):
    monkeypatch.setattr(engine, "_BLOCK_BYTES", 4096)
    rng = np.random.default_rng(1)
    x, centroids = rng.normal(size=(1001, 6)) * 30 + 500, rng.normal(size=(37, 6)) * 30 + 500
    labels, distances = assign(x, centroids)
    expected = brute(x.astype(np.float32), centroids.astype(np.float32))
    assert (labels == expected.argmin(1)).all()
    np.testing.assert_allclose(distances, expected.min(1), rtol=1e-3, atol=1e-2)


def test_reassignment_near_equals_a_full_one():
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(20_000, 5)) * 20 + 100).astype(np.float32)
    before = x[:100].copy()
    labels = brute(x, before).argmin(1)
    moved = rng.random(100) < 0.4
    after = before.copy()
    after[moved] += rng.normal(size=(moved.sum(), 5)).astype(np.float32) * 2
    order = np.argsort(labels, kind="stable")
    found, distances = bounds.reassign(x, labels, order, after, moved, lambda: None)
    expected = brute(x, after)
    assert (found == expected.argmin(1)).all()
    np.testing.assert_allclose(distances, expected.min(1), atol=1e-2)


def test_the_near_path_ends_like_the_full_path(monkeypatch):
    x, _ = blobs(8000, 90, 4)
    assert bounds.pays(8000, 4, 90)
    near = kmeans(x, 90)
    monkeypatch.setattr(engine, "pays", lambda *_: False)
    full = kmeans(x, 90)
    assert adjusted_rand_score(near.labels, full.labels) > 0.999
    assert near.inertia == pytest.approx(full.inertia, rel=1e-3)


def test_clear_clusters_are_found_with_plus_plus():
    x, truth = blobs(3000, 12, 8)
    found = kmeans(x, 12, init="kmeans++")
    assert adjusted_rand_score(found.labels, truth) > 0.98
    again = kmeans(x, 12, init="kmeans++")
    assert (found.labels == again.labels).all()


def test_spherical_clusters_ignore_length():
    x, _ = blobs(2000, 6, 5, seed=4)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    found = kmeans(unit, 6, spherical=True, init="kmeans++", seed=5)
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, rtol=1e-5)
    cosines = unit @ found.centroids.T
    assert (found.labels == cosines.argmax(1)).mean() > 0.999
    assert found.inertia == pytest.approx((1 - cosines.max(1)).sum(), rel=1e-3)


def test_a_sample_trains_and_all_are_assigned():
    x, _ = blobs(5000, 3, 3)
    found = kmeans(x, 3, max_points_per_centroid=100)
    assert found.trained_on == 300
    expected = brute(x.astype(np.float32), found.centroids).argmin(1)
    assert (found.labels == expected).mean() > 0.999


@pytest.mark.parametrize("init", ["random", "kmeans++"])
def test_fewer_rows_than_clusters_and_constant_rows(init):
    assert kmeans(np.eye(3), 10, init=init).labels.tolist() in ([0, 1, 2],)
    same = kmeans(np.ones((500, 4)), 100, init=init)
    assert same.inertia == 0
    assert len(set(same.labels.tolist())) == 1


def test_empty_clusters_are_split_and_the_work_ends():
    x = np.repeat(np.arange(5.0), 200)[:, None] * [1.0, 2.0]
    found = kmeans(x, 50, niter=100)
    assert found.inertia < 1e-3
    assert len(set(found.labels.tolist())) >= 5


def test_bad_values_and_interruption():
    with pytest.raises(ValueError, match="finite"):
        kmeans([[0.0], [np.nan]], 1)
    with pytest.raises(ValueError, match="k >= 1"):
        kmeans(np.zeros((0, 2)), 1)

    def stop():
        raise JobCancelled

    with pytest.raises(JobCancelled):
        kmeans(np.random.default_rng(0).normal(size=(500, 3)), 20, check=stop)
