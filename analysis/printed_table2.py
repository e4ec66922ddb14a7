"""Table 2 of [SM] as printed: exact score-matching loss and log-likelihood of DKEFs on the UCI tables, by row."""

from __future__ import annotations

#: (score-matching loss, log-likelihood) by configuration name below `table2/`. The wine entries of SSM, SSM-VR and the
#: 3-layer SM row are identical in print, errors included: copied rows.
TABLE_2: dict[str, tuple[float, float]] = {
    "parkinson-dsm": (-71.2, -15.7), "redwine-dsm": (-24.8, -14.1), "whitewine-dsm": (-17.8, -14.8),
    "parkinson-cp": (-33.7, -16.9), "redwine-cp": (-12.2, -15.3), "whitewine-cp": (-10.3, -16.1),
    "parkinson-ssm": (-111.9, -15.1), "redwine-ssm": (-27.2, -13.8), "whitewine-ssm": (-33.7, -14.8),
    "parkinson-ssm-vr": (-121.1, -15.0), "redwine-ssm-vr": (-27.2, -13.8), "whitewine-ssm-vr": (-33.7, -14.8),
    "parkinson-deq-ssm": (-143.2, -12.9), "redwine-deq-ssm": (-42.9, -12.9), "whitewine-deq-ssm": (-43.7, -14.2),
    "parkinson-sm": (-123.7, -15.1), "redwine-sm": (-27.2, -13.8), "whitewine-sm": (-33.7, -14.8),
    "parkinson-sm-8": (-124.8, -15.3), "redwine-sm-8": (-29.5, -13.5), "whitewine-sm-8": (-34.7, -14.4),
    "parkinson-sm-16": (-127.6, -13.4), "redwine-sm-16": (-31.6, -12.7), "whitewine-sm-16": (-35.5, -14.5),
    "parkinson-deq-sm": (-152.1, -12.4), "redwine-deq-sm": (-44.5, -12.2), "whitewine-deq-sm": (-45.01, -13.9),
}
