"""Every printed number of [SM]'s tables that a claim or a page needs, by row, in printed units.

Row names are those of our configurations: `parkinson-deq-sm`, `cifar10-aug16`. A value with an error is a pair.
"""

from __future__ import annotations

from analysis.audit import GaussianRow

#: Value and printed error.
Printed = tuple[float, float]

#: Bytes of a printed MiB; table 5 mixes MiB (the score's graph) with GB (total).
MIB = 2**20

#: Table 1, FID after 10k, 50k and 100k iterations.
TABLE_1_FID: dict[str, tuple[Printed, Printed, Printed]] = {
    "celeba-ssm": ((95.23, 0.50), (65.59, 0.52), (61.85, 0.55)),
    "celeba-aug8": ((79.87, 0.61), (61.62, 0.61), (56.02, 0.57)),
    "celeba-aug16": ((76.43, 0.62), (59.20, 0.61), (54.27, 0.48)),
    "celeba-deq": ((74.21, 0.52), (55.93, 0.53), (54.17, 0.48)),
    "cifar10-ssm": ((131.74, 0.40), (83.93, 0.42), (77.35, 0.38)),
    "cifar10-aug8": ((135.28, 0.40), (81.41, 0.35), (70.05, 0.37)),
    "cifar10-aug16": ((135.18, 0.42), (77.85, 0.31), (69.77, 0.28)),
    "cifar10-deq": ((134.24, 0.39), (77.72, 0.33), (68.13, 0.38)),
}
#: Table 1: parameters in millions, gigabytes, seconds "per iteration".
TABLE_1_COSTS: dict[str, tuple[float, float, float]] = {
    "celeba-ssm": (8.8, 4.0, 8.22), "celeba-aug8": (15, 7.3, 37.57), "celeba-aug16": (19, 16, 73.27),
    "celeba-deq": (9.7, 5.4, 21.95), "cifar10-ssm": (7.1, 3.8, 3.97), "cifar10-aug8": (13, 6.3, 17.45),
    "cifar10-aug16": (17, 14, 40.12), "cifar10-deq": (7.5, 4.4, 9.98),
}
TABLE_1_ITERATIONS = 100_000
#: Table 1: the five cells in which the equilibrium's FID is the lowest, with that of the next row.
_STEPS = ("10k", "50k", "100k")
FID: dict[str, tuple[Printed, Printed]] = {
    f"{name}, {_STEPS[at]}": (TABLE_1_FID[f"{data}-deq"][at], min(
        (row[at] for key, row in TABLE_1_FID.items() if key.startswith(data) and not key.endswith("deq"))))
    for data, name in (("celeba", "CelebA"), ("cifar10", "CIFAR-10")) for at in range(3)
    if TABLE_1_FID[f"{data}-deq"][at] == min(row[at] for key, row in TABLE_1_FID.items() if key.startswith(data))
}

#: Table 2: score-matching loss and log-likelihood, parameters in thousands, gigabytes.
TABLE_2: dict[str, tuple[Printed, Printed, float, float]] = {
    "parkinson-dsm": ((-71.2, 1.2), (-15.7, 0.9), 10, 0.5), "redwine-dsm": ((-24.8, 3.0), (-14.1, 1.2), 9, 0.4),
    "whitewine-dsm": ((-17.8, 4.9), (-14.8, 1.0), 9, 0.4),
    "parkinson-cp": ((-33.7, 2.8), (-16.9, 1.3), 10, 0.7), "redwine-cp": ((-12.2, 1.7), (-15.3, 1.5), 9, 0.6),
    "whitewine-cp": ((-10.3, 5.1), (-16.1, 0.5), 9, 0.6),
    "parkinson-ssm": ((-111.9, 10.2), (-15.1, 0.9), 10, 0.5), "redwine-ssm": ((-27.2, 5.9), (-13.8, 0.7), 9, 0.5),
    "whitewine-ssm": ((-33.7, 5.2), (-14.8, 0.8), 9, 0.5),
    "parkinson-ssm-vr": ((-121.1, 7.9), (-15.0, 0.8), 10, 0.5),
    "redwine-ssm-vr": ((-27.2, 5.9), (-13.8, 0.7), 9, 0.5),
    "whitewine-ssm-vr": ((-33.7, 5.2), (-14.8, 0.8), 9, 0.5),
    "parkinson-deq-ssm": ((-143.2, 8.9), (-12.9, 0.9), 10, 0.6),
    "redwine-deq-ssm": ((-42.9, 8.9), (-12.9, 0.9), 9, 0.6),
    "whitewine-deq-ssm": ((-43.7, 6.3), (-14.2, 0.9), 9, 0.6),
    "parkinson-sm": ((-123.7, 6.6), (-15.1, 0.7), 10, 1.2), "redwine-sm": ((-27.2, 5.9), (-13.8, 0.7), 9, 1.0),
    "whitewine-sm": ((-33.7, 5.2), (-14.8, 0.8), 9, 1.0),
    "parkinson-sm-8": ((-124.8, 5.5), (-15.3, 0.9), 26, 2.1), "redwine-sm-8": ((-29.5, 5.5), (-13.5, 0.8), 25, 1.6),
    "whitewine-sm-8": ((-34.7, 5.5), (-14.4, 0.5), 25, 1.6),
    "parkinson-sm-16": ((-127.6, 4.2), (-13.4, 0.6), 51, 3.6),
    "redwine-sm-16": ((-31.6, 5.2), (-12.7, 0.8), 50, 2.7),
    "whitewine-sm-16": ((-35.5, 3.0), (-14.5, 0.6), 50, 2.7),
    "parkinson-deq-sm": ((-152.1, 4.7), (-12.4, 0.7), 10, 1.3),
    "redwine-deq-sm": ((-44.5, 4.1), (-12.2, 0.7), 9, 1.1),
    "whitewine-deq-sm": ((-45.01, 4.7), (-13.9, 0.5), 9, 1.1),
}
#: The same by data set: gigabytes of the rows for exact score matching.
TABLE_2_MEMORY: dict[str, dict[str, float]] = {
    data: {row: TABLE_2[f"{data}-{row}"][3] for row in ("sm", "sm-8", "sm-16", "deq-sm")}
    for data in ("parkinson", "redwine", "whitewine")}
#: The three rows that are identical in print on both wines: (loss, its error, log-likelihood).
TABLE_2_WINE: dict[str, dict[str, tuple[float, float, float]]] = {
    name: {colour: (*TABLE_2[f"{colour}wine-{row}"][0], TABLE_2[f"{colour}wine-{row}"][1][0])
           for colour in ("red", "white")} for name, row in (("SSM", "ssm"), ("SSM-VR", "ssm-vr"), ("SM", "sm"))}
#: "#Param" in thousands by data set and layers.
TABLE_2_PARAMETERS: dict[tuple[str, int], int] = {
    (name, layers): int(TABLE_2[f"{data}-{row}"][2]) for name, data in (("parkinson", "parkinson"), ("wine", "redwine"))
    for layers, row in ((3, "sm"), (8, "sm-8"), (16, "sm-16"))}

#: Table 3: loss, log-likelihood, Fisher divergence, parameters in thousands, gigabytes.
TABLE_3: dict[str, tuple[float, float, float, float, float]] = {
    "gaussian-100-sm": (-43.60, -141.25, 6.73, 22, 3.8), "gaussian-100-sm-8": (-43.86, -140.85, 6.56, 41, 7.3),
    "gaussian-100-sm-16": (-44.92, -141.25, 6.84, 66, 13.2), "gaussian-100-deq-sm": (-46.03, -138.86, 6.72, 22, 3.9),
    "gaussian-200-sm": (-66.32, -314.22, 33.86, 33, 5.0), "gaussian-200-sm-8": (-66.99, -313.35, 33.09, 50, 8.7),
    "gaussian-200-sm-16": (-67.58, -311.84, 32.27, 76, 14.8), "gaussian-200-deq-sm": (-75.03, -292.56, 25.42, 33, 5.6),
}
#: The "ground truth" log-likelihoods of table 3.
TABLE_3_TRUTH = {100: -137.14, 200: -283.79}
_LABELS = {"sm": "3-layer", "sm-8": "8-layer", "sm-16": "16-layer", "deq-sm": "DEQ"}
TABLE_3_ROWS: tuple[GaussianRow, ...] = tuple(
    GaussianRow(int(name.split("-")[1]), _LABELS[name.split("-", 2)[2]], *row[:3]) for name, row in TABLE_3.items())
TABLE_3_BEST: dict[int, dict[str, dict[str, float]]] = {
    dim: {name.split("-", 2)[2]: {"loss": row[0], "log-likelihood": row[1], "Fisher divergence": row[2]}
          for name, row in TABLE_3.items() if f"-{dim}-" in name} for dim in (100, 200)}
TABLE_3_PARAMETERS: dict[tuple[int, int], int] = {
    (dim, layers): int(TABLE_3[f"gaussian-{dim}-{row}"][3]) for dim in (100, 200)
    for layers, row in ((3, "sm"), (8, "sm-8"), (16, "sm-16"))}

#: Table 4: loss, log-likelihood; parameters in millions and gigabytes where printed.
TABLE_4: dict[str, tuple[float, float, float | None, float | None]] = {
    "mle": (-579, -791, None, None), "cp": (-1694, -1517, None, None), "dsm-0.1": (-3035, -4363, None, None),
    "dsm-1.74": (-97, -8082, None, None), "approxbp": (-48, -2288, None, None), "ssm": (-2455, -2058, 15, 6.5),
    "deq-ssm": (-2548, -1766, 14, 5.5),
}
#: Table 4: DEQ-SSM beside SSM, with errors over three seeds; the loss, and the likelihood with its sign turned.
TABLE_4_ERRORS: dict[str, tuple[Printed, Printed]] = {
    "loss": ((-2548.0, 55.0), (-2455.0, 52.0)), "log-likelihood": ((1766.0, 48.0), (2058.0, 60.0))}

#: Table 5: FID, milliseconds an iteration, parameters in millions, MiB of the score's graph, total gigabytes.
TABLE_5: dict[str, tuple[Printed, Printed, float, float, float]] = {
    "ssm-vr": ((40.31, 1.4), (871, 10), 28, 7536, 40.4), "two-res": ((50.77, 1.5), (391, 10), 9, 1701, 18.5),
    "deq": ((40.99, 1.0), (481, 25), 9, 2104, 20.1),
}
TABLE_5_ITERATIONS = 200_000

#: Table 10: absolute tolerance and average iterations; at most 128.
TABLE_10: dict[str, tuple[float, float]] = {
    "table2/parkinson-deq-sm": (5e-6, 12.8), "table2/parkinson-deq-ssm": (5e-6, 14.5),
    "table1/celeba-deq": (1e-5, 18.9), "table1/cifar10-deq": (1e-5, 15.2), "table4/deq-ssm": (5e-6, 11.8),
    "table5/deq": (1e-5, 16.6),
}
