"""Parameter counts against arithmetic done here by hand, layer by layer, from the papers' tables."""

import pytest

from deq.models.counts import ROWS, report


def dense(before, after, bias=True):
    return before * after + after * bias


def conv(before, after, kernel, bias=True):
    return before * after * kernel**2 + after * bias


def residual(before, after, shortcut=0):
    """Two 3 x 3 convolutions, two norms of three vectors each; a given count for the shortcut."""
    return conv(before, after, 3) + conv(after, after, 3) + 3 * (before + after) + shortcut


def refine(inputs, features, units):
    adapt = sum(4 * conv(c, c, 3, bias=False) for c in inputs)
    fuse = sum(conv(c, features, 3) for c in inputs) if len(inputs) > 1 else 0
    return adapt + fuse + (2 + 2 * units) * conv(features, features, 3, bias=False)


def vae_score(size, first_input=4, extra=0, m=64):
    side = size // 16
    trunk = conv(first_input, m, 5) + conv(m, 2 * m, 5) + conv(2 * m, 4 * m, 5) + conv(4 * m, 8 * m, 5)
    return dense(64, size**2) + extra + trunk + dense(8 * m * side**2, 512) + dense(512, 64)


def augmented(depth):
    return conv(4, 64, 5) + (depth - 1) * conv(64, 64, 5)


def dkef(dim, layers, points, width=32):
    """Three feature nets with a linear skip, three logits and lengths, the points and the ridge."""
    net = dense(dim, width) + (layers - 1) * dense(width, width) + dense(dim, width, bias=False)
    return 3 * net + 6 + points * dim + 1


NICE_SCALE = 784
NCSN_ENDS = conv(3, 128, 3) + 3 * 128 + conv(128, 3, 3)
CASCADED = (
    residual(128, 128) + residual(128, 256, conv(128, 256, 1)) + 6 * residual(256, 256)
    + conv(256, 256, 1) + 2 * conv(256, 256, 3)
    + refine([256], 256, 1) + refine([256, 256], 128, 1) + refine([256, 128], 128, 1) + refine([256, 128], 128, 3))
LITERAL_DEQ = (
    residual(128, 256, conv(128, 256, 1)) + 3 * residual(256, 256) + residual(256, 256, conv(256, 256, 1))
    + refine([256], 256, 1) + refine([256, 256], 128, 3))

HAND = {
    ("CelebA SSM VAE", "literal"): vae_score(64),
    ("CelebA SSM VAE Aug(8)", "literal"): vae_score(64, 64, augmented(8)),
    ("CelebA SSM VAE Aug(16)", "literal"): vae_score(64, 64, augmented(16)),
    ("CelebA DEQ-SSM VAE", "literal"): vae_score(64, 64, conv(4, 64, 5) + conv(64, 64, 5, bias=False)),
    ("CIFAR-10 SSM VAE", "literal"): vae_score(32),
    ("CIFAR-10 SSM VAE Aug(8)", "literal"): vae_score(32, 64, augmented(8)),
    ("CIFAR-10 SSM VAE Aug(16)", "literal"): vae_score(32, 64, augmented(16)),
    ("CIFAR-10 DEQ-SSM VAE", "literal"): vae_score(32, 64, conv(4, 64, 5) + conv(64, 64, 5, bias=False)),
    **{(f"{name} {k}-layer DKEF", "literal"): dkef(d, k, 64)
       for name, d in (("Parkinson", 15), ("Wine", 11)) for k in (3, 8, 16)},
    **{(f"{d}-d {k}-layer DKEF", "literal"): dkef(d, k, 200) for d in (100, 200) for k in (3, 8, 16)},
    ("Parkinson DEQ DKEF", "literal"): 7015,  # 3 (32^2 + (15 + 1 + 15) 32) + 6 + 64 15 + 1
    ("Wine DEQ DKEF", "literal"): 5991,
    ("SSM NICE", "literal"): 4 * (dense(392, 1000) + 3 * dense(1000, 1000) + dense(1000, 392)) + NICE_SCALE,
    ("DEQ-SSM NICE", "literal"): 4 * (dense(392, 1000) + 1000**2 + dense(1000, 392)) + NICE_SCALE,
    ("SSM-VR NCSN", "literal"): CASCADED + NCSN_ENDS,
    ("DEQ-SSM-VR NCSN", "literal"): LITERAL_DEQ + NCSN_ENDS,
    ("TwoRes-SSM-VR NCSN", "literal net, DEQ applied once"): LITERAL_DEQ + NCSN_ENDS,
}
# Counts of the released networks, read off the authors' code by instantiating it once.
RELEASED = {("SSM-VR NCSN", "released trunk"): 29_694_083, ("TwoRes-SSM-VR NCSN", "released trunk"): 7_385_219,
            ("DEQ-SSM-VR NCSN", "released trunk"): 5_500_547}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.row} ({row.note})")
def test_count_matches_hand_count(row):
    expected = (HAND | RELEASED).get((row.row, row.note))
    if expected is None:  # the released NICE map: W1, W2 with biases in each of the four shifts
        assert row.note.startswith("released map")
        expected = 4 * (dense(392, 1000) + 2 * dense(1000, 1000) + dense(1000, 392)) + NICE_SCALE
    assert row.count() == expected


def test_hand_counts_are_the_specified_ones():
    assert HAND["SSM NICE", "literal"] == 15_154_352
    assert HAND["CelebA SSM VAE", "literal"] == 8_802_048
    assert round(HAND["CelebA SSM VAE Aug(8)", "literal"] / 1e6, 2) == 9.62
    assert round(HAND["CelebA SSM VAE Aug(16)", "literal"] / 1e6, 2) == 10.44
    assert round(HAND["CelebA DEQ-SSM VAE", "literal"] / 1e6, 2) == 9.01
    assert round(HAND["SSM-VR NCSN", "literal"] / 1e6, 2) == 28.73
    assert round(HAND["DEQ-SSM-VR NCSN", "literal"] / 1e6, 2) == 16.93


def test_report_prints_both_counts():
    text = report()
    assert "15,154,352" in text
    assert "15M" in text
